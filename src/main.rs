//! The `vintern` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vintern::cli::main())
}
