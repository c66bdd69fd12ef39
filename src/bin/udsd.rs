//! The daemon; see `udsd::daemon`.

use std::process::ExitCode;

fn main() -> ExitCode {
    udsd::daemon::main()
}
