use super::error::CliError;
pub(super) fn run(_args: &super::args::DoctorArgs) -> Result<(), CliError> { Ok(()) }
