//! How it ended: what is checked once all conversations are over, and the words of the last line.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use super::{Crowd, PATIENCE, ledger::Wanted};

impl Crowd {
    /// Checks the records and the order of the relay. Returns what is said of the whole.
    pub(super) fn conclude(&self) -> Result<String, String> {
        let wanted = if self.bereaved {
            [Wanted::Beginnings, Wanted::InOrder]
        } else {
            [Wanted::All, Wanted::All]
        };
        let order = if self.bereaved {
            None
        } else {
            Some(self.room.borrow().common_order()?)
        };
        let mut parts = vec![format!("{} conversations", self.done)];
        parts.extend(order.map(|lines| format!("{lines} relayed lines in one order")));
        let ledgers = [(&self.collected, "collected"), (&self.notes, "noted")];
        for ((ledger, what), wanted) in ledgers.into_iter().zip(wanted) {
            let ledger = ledger.borrow();
            let patience = Instant::now();
            // Who half-closed and saw the end knows that it was read; the writer may be behind.
            while wanted == Wanted::All && !ledger.is_full(true)? && patience.elapsed() < PATIENCE {
                sleep(Duration::from_millis(10));
            }
            let (lines, missing) = ledger.check(wanted)?;
            parts.push(format!("{lines} lines {what}, {missing} missing"));
        }
        if self.restarts > 0 {
            parts.push(format!("{} restarts", self.restarts));
        }
        let mut text = parts.join(", ");
        for (waits, who) in self.pauses.iter().zip(["answers", "new clients"]) {
            if !waits.is_empty() {
                text += &format!("\ncrowd: pause of {who}: {}", percentiles(waits));
            }
        }
        Ok(text)
    }

    /// Who was lost: how many of each sort, and the first of them in full.
    pub(super) fn losses(&self) -> String {
        const SHOWN: usize = 2;
        let mut text = String::new();
        for (sort, lost) in &self.lost {
            text += &format!("  {sort}: {} lost, such as\n", lost.len());
            for one in lost.iter().take(SHOWN) {
                text += &format!("    {one}\n");
            }
        }
        text
    }
}

/// Half of the waits were no longer than the first, and so on.
fn percentiles(waits: &[Duration]) -> String {
    let mut waits = waits.to_vec();
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!(
        "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms ({} longest waits)",
        at(0.5),
        at(0.99),
        at(1.0),
        waits.len()
    )
}
