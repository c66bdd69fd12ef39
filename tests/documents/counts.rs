//! The counts in udsd(8): all counters that there are, each with what it means.

use udsd::counters::Counters;

use crate::{between, manual};

#[test]
fn the_manual_has_each_counter_as_it_is_in_the_sources() {
    let section = between(manual("udsd.8"), ".Sh COUNTS\n", &["\n.Sh "]);
    let list = section.split("\n.El").next().unwrap();
    let there = list.split("\n.It ").skip(1).map(|item| {
        let (name, meaning) = item.split_once('\n').unwrap();
        let meaning: Vec<&str> = meaning.split_whitespace().collect();
        (name.to_owned(), meaning.join(" "))
    });
    let counters = Counters::default();
    let rows = counters.rows();
    let wanted = rows.map(|row| (row.name.to_owned(), row.meaning.to_owned()));
    let (there, wanted): (Vec<_>, Vec<_>) = (there.collect(), wanted.collect());
    let lacking: Vec<String> = wanted
        .iter()
        .filter(|row| !there.contains(row))
        .map(|(name, meaning)| format!(".It {name}\n{meaning}\n"))
        .collect();
    assert!(
        lacking.is_empty(),
        "udsd.8 is to have, in this order:\n{}",
        lacking.concat()
    );
    assert_eq!(there, wanted);
}
