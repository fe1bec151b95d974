//! `unsafe` stands in `src/sys/` and `vendor/` only.

use std::path::Path;

use syn::{
    ExprUnsafe, File, ItemForeignMod, ItemImpl, ItemTrait, Signature,
    spanned::Spanned as _,
    visit::{self, Visit},
};

use crate::source;

#[derive(Default)]
struct Finder {
    lines: Vec<usize>,
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_expr_unsafe(&mut self, node: &'ast ExprUnsafe) {
        self.lines.push(node.span().start().line);
        visit::visit_expr_unsafe(self, node);
    }

    fn visit_signature(&mut self, node: &'ast Signature) {
        if node.unsafety.is_some() {
            self.lines.push(node.span().start().line);
        }
        visit::visit_signature(self, node);
    }

    fn visit_item_impl(&mut self, node: &'ast ItemImpl) {
        if node.unsafety.is_some() {
            self.lines.push(node.span().start().line);
        }
        visit::visit_item_impl(self, node);
    }

    fn visit_item_trait(&mut self, node: &'ast ItemTrait) {
        if node.unsafety.is_some() {
            self.lines.push(node.span().start().line);
        }
        visit::visit_item_trait(self, node);
    }

    fn visit_item_foreign_mod(&mut self, node: &'ast ItemForeignMod) {
        self.lines.push(node.span().start().line);
        visit::visit_item_foreign_mod(self, node);
    }
}

fn unsafe_lines(file: &File) -> Vec<usize> {
    let mut finder = Finder::default();
    finder.visit_file(file);
    finder.lines
}

#[test]
fn unsafe_only_in_sys() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for path in source::rust_files(folder) {
            if path.starts_with(Path::new("src/sys")) {
                continue;
            }
            for line in unsafe_lines(&source::parse(&path)) {
                wrong.push(format!("{}:{line}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe outside src/sys and vendor: {wrong:#?}");
}

#[test]
fn the_finder_sees_every_form() {
    let file = syn::parse_file(
        "fn a() { unsafe { b() } }\nunsafe fn b() {}\nunsafe impl Send for C {}\nunsafe trait D {}\nunsafe extern \"C\" {}",
    )
    .unwrap();
    assert_eq!(unsafe_lines(&file), [1, 2, 3, 4, 5]);
}
