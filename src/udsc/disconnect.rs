//! `udsc disconnect`: ends one client.

use clap::Args;
use serde_json::{Value, json};

use super::{Options, control, daemon::only_daemon, failure::Failure, terminal::print_json};

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Its number
    #[arg(value_name = "ID")]
    id: u64,
    /// Its number as an object, once it has been ended
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options, plan: &Plan) -> Result<(), Failure> {
    only_daemon(options, false)?;
    let client = json!({ "id": plan.id });
    let mut control = control::connect(options)?;
    let _: Value = control.call("Disconnect", client.clone())?;
    match plan.json {
        true => print_json([client]),
        false => Ok(()),
    }
}
