#!/bin/sh
# A small crate with a library, a program, a build script and tests is built, tested, changed and built again.
set -eu
cd "$PLACE/mount"
export CARGO_TARGET_DIR="$PLACE/mount/sample/target" CARGO_NET_OFFLINE=true
cargo new -q --vcs none sample
cd sample
cat >build.rs <<'X'
fn main() {
    let out = std::env::var("OUT_DIR").unwrap();
    std::fs::write(format!("{out}/made.rs"), "pub const MADE: u32 = 41;").unwrap();
}
X
cat >src/lib.rs <<'X'
include!(concat!(env!("OUT_DIR"), "/made.rs"));
pub fn answer() -> u32 { MADE + 1 }
#[cfg(test)]
mod tests {
    #[test]
    fn answers() { assert_eq!(super::answer(), 42); }
}
X
echo 'fn main() { println!("{}", library::answer()); }' >src/main.rs
printf '[lib]\nname = "library"\n' >>Cargo.toml
[ "$(cargo run -q --release)" = 42 ]
cargo test -q 2>&1 | grep '1 passed'
# Nothing is built twice; a change is seen.
cargo build --release 2>&1 | grep Finished
sed -i 's/MADE + 1/MADE + 2/' src/lib.rs
[ "$(cargo run -q --release)" = 43 ]
cp -a ../sample ../copy && diff -r ../sample ../copy
rm -rf ../copy
echo "cargo: run, test, rebuild, copy"
