//! Files with equal contents become one.

use std::collections::HashMap;

use super::{
    category::Category,
    inspect::Insight,
    object::Object,
    similar::Sketch,
    tree::{ObjectId, Tree},
};

/// Files with equal contents; mostly there is one only.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) first: ObjectId,
    pub(super) others: Vec<ObjectId>,
    pub(super) category: Category,
}

/// Groups files, given in packing order with what is known of each, by their contents. A group stands where its first
/// file stood; its sketch stands at the same place of the second list.
pub(super) fn group(tree: &Tree, order: Vec<ObjectId>, insights: &[Insight]) -> (Vec<Group>, Vec<Sketch>) {
    let mut groups: Vec<Group> = Vec::with_capacity(order.len());
    let mut sketches = Vec::with_capacity(order.len());
    let mut of_content: HashMap<(u64, u128), usize> = HashMap::new();
    let known = order.into_iter().zip(insights).filter(|(id, _)| !tree.is_lost(*id));
    for (id, insight) in known {
        if let Some(hash) = insight.hash {
            let size = tree.object(id).and_then(Object::file).map_or(0, |file| file.size);
            let at = *of_content.entry((size, hash)).or_insert(groups.len());
            if let Some(group) = groups.get_mut(at) {
                group.others.push(id);
                continue;
            }
        }
        groups.push(Group { first: id, others: Vec::new(), category: insight.category });
        sketches.push(insight.sketch);
    }
    (groups, sketches)
}
