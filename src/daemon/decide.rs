//! What becomes of each socket of a file that comes into force: at a start, where nothing is present; at a
//! restart, where all is restored first; at a reload.
//!
//! `apply` gathers what this process has and what the manager passed, and does what is decided here, where no
//! descriptor is touched. A socket that is present and that no socket of the file goes on with ends.

/// What this process has of a socket of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Present {
    /// Nothing.
    Nothing,
    /// Nothing: the process before has left it to the manager alone.
    LeftToManager,
    /// One that udsd bound, where the file wants it.
    InPlace,
    /// One that udsd bound, and that is not where clients look for it: the file wants it elsewhere or of another
    /// type, or somebody removed its socket file. `may_stay`: it is of the type that the file wants, and the file
    /// wants no other socket in its place.
    Elsewhere { may_stay: bool },
    /// One that the manager passed to this process or to one before.
    Inherited,
    /// One that the manager passed, and the file wants another type.
    OtherType,
    /// One that the manager passed, at the address that the file wants, under a name that the file no longer
    /// has.
    Renamed,
}

/// What the manager has passed for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Passed {
    Nothing,
    /// The socket that is present.
    Same,
    /// One that this process does not have, or has under another name.
    Another,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decision {
    /// udsd makes it.
    Bind,
    /// The one that the manager passed serves from now on; clients that wait at the one before come in first.
    Inherit,
    /// The one that is present stays.
    Keep,
    /// udsd makes it where the file wants it, and the one that is present ends.
    Move,
    /// The one that is present serves on until the units, or the administrator, make what the file wants.
    ServeOn,
    /// Nobody serves it: only the manager can make it.
    Leave,
}

pub(super) fn decide(present: Present, passed: Passed) -> Decision {
    match (present, passed) {
        (_, Passed::Another) => Decision::Inherit,
        (_, Passed::Same) | (Present::InPlace, Passed::Nothing) => Decision::Keep,
        (Present::Nothing, Passed::Nothing) => Decision::Bind,
        (Present::Elsewhere { .. }, Passed::Nothing) => Decision::Move,
        (Present::Inherited | Present::Renamed, Passed::Nothing) => Decision::ServeOn,
        (Present::LeftToManager | Present::OtherType, Passed::Nothing) => Decision::Leave,
    }
}

/// What becomes of a socket that cannot be bound. `None`: the file does not come into force. `is_lenient`: the
/// other sockets come into force without it.
pub(super) fn decide_unbound(present: Present, is_lenient: bool) -> Option<Decision> {
    match present {
        _ if !is_lenient => None,
        Present::Elsewhere { may_stay: true } => Some(Decision::ServeOn),
        _ => Some(Decision::Leave),
    }
}

impl Decision {
    /// The log's word for the socket that clients connect to; `None` where there is none.
    pub(super) fn served(self, passed: Passed, present: Present) -> Option<&'static str> {
        match self {
            Decision::Keep if passed == Passed::Nothing && present == Present::InPlace => {
                Some("bound")
            }
            Decision::Bind | Decision::Move => Some("bound"),
            Decision::Inherit | Decision::Keep => Some("inherited"),
            Decision::ServeOn => Some("kept"),
            Decision::Leave => None,
        }
    }

    /// Why the socket is not as the file wants it, where only its unit can mend that.
    pub(super) fn why(self, present: Present) -> Option<&'static str> {
        match (self, present) {
            (Decision::ServeOn, _) | (Decision::Leave, Present::LeftToManager) => {
                Some("the service manager no longer has it")
            }
            (Decision::Leave, Present::OtherType) => {
                Some("it was another type of socket until now, which its unit has to make anew")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Passed::{Another, Nothing as NotPassed, Same},
        Present::{Elsewhere, InPlace, Inherited, LeftToManager, Nothing, OtherType, Renamed},
        *,
    };

    const MAY_STAY: Present = Elsewhere { may_stay: true };
    const MUST_GO: Present = Elsewhere { may_stay: false };

    /// Every combination that can be, a sentence each.
    #[rustfmt::skip] // a table
    const TABLE: &[(Present, Passed, Decision, &str)] = &[
        (Nothing, NotPassed, Decision::Bind, "A new socket is bound."),
        (Nothing, Another, Decision::Inherit, "One that the manager passes is inherited."),
        (LeftToManager, NotPassed, Decision::Leave, "One that only the manager had, and has no more, is not served."),
        (LeftToManager, Another, Decision::Inherit, "One that only the manager had, and made anew, is inherited."),
        (InPlace, NotPassed, Decision::Keep, "One that is where the file wants it stays."),
        (InPlace, Another, Decision::Inherit, "A unit may take the place of one that udsd bound."),
        (MAY_STAY, NotPassed, Decision::Move, "One that the file wants elsewhere moves."),
        (MAY_STAY, Another, Decision::Inherit, "One that the file wants elsewhere may get a unit there."),
        (MUST_GO, NotPassed, Decision::Move, "One that the file wants of another type is bound anew."),
        (MUST_GO, Another, Decision::Inherit, "One that the file wants of another type may get a unit."),
        (Inherited, NotPassed, Decision::ServeOn, "One that the manager dropped after an edit serves on."),
        (Inherited, Same, Decision::Keep, "One that the manager passes again stays."),
        (Inherited, Another, Decision::Inherit, "One that the manager made anew is inherited."),
        (OtherType, NotPassed, Decision::Leave, "One of another type than before waits for its unit."),
        (OtherType, Same, Decision::Keep, "One of another type than before that is passed as it was is refused, as the type says why."),
        (OtherType, Another, Decision::Inherit, "One of another type than before is inherited from its unit."),
        (Renamed, NotPassed, Decision::ServeOn, "One that was renamed serves on under its new name."),
        (Renamed, Another, Decision::Inherit, "One that was renamed is passed under its new name."),
    ];

    #[test]
    fn each_row_is_so() {
        for &(present, passed, decision, sentence) in TABLE {
            assert_eq!(decide(present, passed), decision, "{sentence}");
        }
    }

    #[test]
    fn every_combination_that_can_be_has_a_row() {
        let all = [
            Nothing,
            LeftToManager,
            InPlace,
            MAY_STAY,
            MUST_GO,
            Inherited,
            OtherType,
            Renamed,
        ];
        for present in all {
            for passed in [NotPassed, Same, Another] {
                // Only what the manager passed before can be the same now, and only under the same name.
                let can_be = passed != Same || matches!(present, Inherited | OtherType);
                let rows = TABLE
                    .iter()
                    .filter(|row| (row.0, row.1) == (present, passed));
                assert_eq!(rows.count(), usize::from(can_be), "{present:?}, {passed:?}");
            }
        }
    }

    #[test]
    fn one_that_cannot_be_bound_costs_only_itself_where_that_is_allowed() {
        for (present, decision) in [
            (Nothing, Decision::Leave),
            (MAY_STAY, Decision::ServeOn),
            (MUST_GO, Decision::Leave),
        ] {
            assert_eq!(decide_unbound(present, true), Some(decision));
            assert_eq!(decide_unbound(present, false), None);
        }
    }

    #[test]
    fn the_log_tells_of_each_decision() {
        for &(present, passed, decision, sentence) in TABLE {
            let is_told =
                decision.why(present).is_some() || decision.served(passed, present).is_some();
            assert!(is_told, "{sentence}");
        }
    }
}
