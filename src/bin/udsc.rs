//! The client of udsd. All of it is in `udsd::client`.

use std::process::ExitCode;

fn main() -> ExitCode {
    udsd::client::main()
}
