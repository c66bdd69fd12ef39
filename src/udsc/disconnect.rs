//! `udsc disconnect`: ends one client.

use serde_json::{Value, json};

use super::{Options, control, daemon::only_daemon, failure::Failure};

pub(crate) fn run(options: &Options, id: u64) -> Result<(), Failure> {
    only_daemon(options, false)?;
    let mut control = control::connect(options)?;
    let _: Value = control.call("Disconnect", json!({ "id": id }))?;
    Ok(())
}
