use super::error::CliError;
pub(super) fn run(_args: &super::args::InspectArgs) -> Result<(), CliError> { Ok(()) }
