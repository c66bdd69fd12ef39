//! The systemd generator; see `udsd::generator`.

use std::process::ExitCode;

fn main() -> ExitCode {
    udsd::generator::main()
}
