use super::error::CliError;
pub(super) fn run(_args: &super::args::BenchArgs) -> Result<(), CliError> { Ok(()) }
