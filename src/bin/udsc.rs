//! The client of udsd. All of it is in `udsd::udsc`.

use std::process::ExitCode;

fn main() -> ExitCode {
    udsd::udsc::main()
}
