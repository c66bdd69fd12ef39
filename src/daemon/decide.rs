//! What becomes of each socket when a file comes into force: at a start, where nothing is present; at a
//! restart, where all is restored first; at a reload.
//!
//! Decided from what the file wants, what this process has and what the manager passed, before a descriptor
//! is touched. `apply` gathers the three, and does what was decided.

/// What this process has of a socket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Present {
    /// Nothing.
    Nothing,
    /// Nothing: the process before has left it to the manager alone.
    Left,
    /// One that udsd bound, where the file wants it.
    InPlace,
    /// One that udsd bound, where nobody finds it: the file wants it elsewhere or of another type, or its own
    /// file is gone. `may_stay`: it is of the type that the file wants, and no other socket is to be there.
    Elsewhere { may_stay: bool },
    /// One that the manager passed once.
    Inherited,
    /// The same, but the file wants another type.
    OtherType,
    /// The same, at the address that the file wants, under a name that the file no longer has.
    Renamed,
}

/// What the manager has passed of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Passed {
    Nothing,
    /// The socket that is present.
    Same,
    /// One that this process does not have yet.
    Another,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decision {
    /// udsd makes it.
    Bind,
    /// The one that the manager passed serves from now on; who waits at another one comes in first.
    Inherit,
    /// It serves as it does.
    Keep,
    /// udsd makes it where the file wants it; the one that is present makes way.
    Move,
    /// The one that is present serves on, although it is not, or no longer, as the file wants it.
    ServeOn,
    /// It is not udsd's to make, or to end.
    Leave,
    /// Nobody can connect there any more.
    End,
}

/// `is_wanted`: the file has a socket of that name.
pub(super) fn decide(is_wanted: bool, present: Present, passed: Passed) -> Decision {
    match (is_wanted, present, passed) {
        (true, _, Passed::Another) => Decision::Inherit,
        (true, _, Passed::Same) | (true, Present::InPlace, Passed::Nothing) => Decision::Keep,
        (true, Present::Nothing, Passed::Nothing) => Decision::Bind,
        (true, Present::Elsewhere { .. }, Passed::Nothing) => Decision::Move,
        (true, Present::Inherited | Present::Renamed, Passed::Nothing) => Decision::ServeOn,
        (true, Present::Left | Present::OtherType, Passed::Nothing) => Decision::Leave,
        (false, _, Passed::Same) => Decision::Leave,
        (false, ..) => Decision::End,
    }
}

/// What becomes of one that cannot be bound; `None`: the file is not put into force. `is_lenient`: one that
/// cannot be had costs only itself.
pub(super) fn decide_unbound(present: Present, is_lenient: bool) -> Option<Decision> {
    match present {
        _ if !is_lenient => None,
        Present::Elsewhere { may_stay: true } => Some(Decision::ServeOn),
        _ => Some(Decision::Leave),
    }
}

impl Decision {
    /// The log's word for where clients come from; `None` where none come.
    pub(super) fn served(self, passed: Passed, present: Present) -> Option<&'static str> {
        match self {
            Decision::Keep if passed == Passed::Nothing && present == Present::InPlace => {
                Some("bound")
            }
            Decision::Bind | Decision::Move => Some("bound"),
            Decision::Inherit | Decision::Keep => Some("inherited"),
            Decision::ServeOn => Some("kept"),
            Decision::Leave | Decision::End => None,
        }
    }

    /// Why it is not as the file wants it, where only the units can mend that.
    pub(super) fn why(self, present: Present) -> Option<&'static str> {
        match (self, present) {
            (Decision::ServeOn, _) | (Decision::Leave, Present::Left) => {
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
        Present::{Elsewhere, InPlace, Inherited, Left, Nothing, OtherType, Renamed},
        *,
    };

    const MAY_STAY: Present = Elsewhere { may_stay: true };
    const MUST_GO: Present = Elsewhere { may_stay: false };

    /// Every combination that can be, a sentence each.
    #[rustfmt::skip] // a table
    const TABLE: &[(bool, Present, Passed, Decision, &str)] = &[
        (true, Nothing, NotPassed, Decision::Bind, "A new socket is bound."),
        (true, Nothing, Another, Decision::Inherit, "One that the manager passes is inherited."),
        (true, Left, NotPassed, Decision::Leave, "One that the manager alone had and has no more is not served."),
        (true, Left, Another, Decision::Inherit, "One that the manager alone had, and made anew, is inherited."),
        (true, InPlace, NotPassed, Decision::Keep, "One that is where the file wants it stays."),
        (true, InPlace, Another, Decision::Inherit, "A unit may take the place of one that udsd bound."),
        (true, MAY_STAY, NotPassed, Decision::Move, "One that the file wants elsewhere moves."),
        (true, MAY_STAY, Another, Decision::Inherit, "One that the file wants elsewhere may get a unit there."),
        (true, MUST_GO, NotPassed, Decision::Move, "One that the file wants of another type is bound anew."),
        (true, MUST_GO, Another, Decision::Inherit, "One that the file wants of another type may get a unit."),
        (true, Inherited, NotPassed, Decision::ServeOn, "One that the manager dropped after an edit serves on."),
        (true, Inherited, Same, Decision::Keep, "One that the manager passes again stays."),
        (true, Inherited, Another, Decision::Inherit, "One that the manager made anew is inherited."),
        (true, OtherType, NotPassed, Decision::Leave, "One of another type than before waits for its unit."),
        (true, OtherType, Same, Decision::Keep, "One of another type than before, passed as it was, is judged there."),
        (true, OtherType, Another, Decision::Inherit, "One of another type than before is inherited from its unit."),
        (true, Renamed, NotPassed, Decision::ServeOn, "One that was renamed serves on under its new name."),
        (true, Renamed, Another, Decision::Inherit, "One that was renamed is passed under its new name."),
        (false, InPlace, NotPassed, Decision::End, "One that the file no longer has is gone."),
        (false, Inherited, NotPassed, Decision::End, "One that neither file nor manager has is gone."),
        (false, Inherited, Same, Decision::Leave, "One that serves under another name does not end."),
    ];

    #[test]
    fn each_row_is_so() {
        for &(is_wanted, present, passed, decision, sentence) in TABLE {
            assert_eq!(decide(is_wanted, present, passed), decision, "{sentence}");
        }
    }

    #[test]
    fn every_combination_that_can_be_has_a_row() {
        let all = [
            Nothing, Left, InPlace, MAY_STAY, MUST_GO, Inherited, OtherType, Renamed,
        ];
        for present in all {
            for passed in [NotPassed, Same, Another] {
                // The same as one that is present, and of this name, can only be what the manager passed.
                let can_be = passed != Same || matches!(present, Inherited | OtherType);
                let rows = TABLE
                    .iter()
                    .filter(|row| row.0 && (row.1, row.2) == (present, passed));
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
    fn whoever_is_not_served_by_decision_hears_why() {
        for &(is_wanted, present, passed, decision, sentence) in TABLE {
            let is_told =
                decision.why(present).is_some() || decision.served(passed, present).is_some();
            assert_eq!(is_told, is_wanted, "{sentence}");
        }
    }
}
