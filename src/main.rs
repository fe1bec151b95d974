//! The thin door: everything is in the library.

fn main() -> std::process::ExitCode {
    fim::cli::main()
}
