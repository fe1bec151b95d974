//! Our archives and upstream's tools against each other.
//!
//! The tools are looked for in `$FIM_JUDGES`, then on `PATH`. Where one is missing the test says so and passes,
//! unless `FIM_TEST_REQUIRE` is set.

mod tree_facts;
mod upstream;
mod written;
