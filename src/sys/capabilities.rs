//! Capabilities of the calling thread.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
};

/// What process 1 has to look at the memory and descriptors of programs inside, and to keep them from having the same.
const TRACING: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::SETPCAP);

/// Whether the calling thread may trace others of its user namespace, and give that up for good.
#[must_use]
pub fn can_trace() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(TRACING))
}

/// Gives that up for good, for what the calling thread executes as well.
///
/// # Errors
///
/// What prctl(2) and capset(2) say.
pub fn give_up_tracing() -> io::Result<()> {
    // Taking something out of the bounding set is itself one of the capabilities that go.
    for capability in [CapabilitySet::SYS_PTRACE, CapabilitySet::SETPCAP] {
        remove_capability_from_bounding_set(capability)?;
    }
    let CapabilitySets { effective, permitted, inheritable } = capabilities(None)?;
    Ok(set_capabilities(
        None,
        CapabilitySets {
            effective: effective.difference(TRACING),
            permitted: permitted.difference(TRACING),
            inheritable: inheritable.difference(TRACING),
        },
    )?)
}
