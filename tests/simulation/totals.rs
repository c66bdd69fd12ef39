//! What must add up over all clients: what is held, what was dropped, what was lost.

use udsd::config::ServiceKind;

use crate::{
    actor::Actor,
    room::Room,
    schedule::{Schedule, USERS},
};

impl Schedule {
    /// No more is held than the quotas allow.
    pub fn check_quotas(&self) {
        let Some((per_user, total)) = self.quotas else {
            return;
        };
        let hub = &self.world.hub;
        let held = hub.held();
        assert!(
            held <= total,
            "{held} bytes are held, queue-total is {total}"
        );
        for uid in USERS {
            let held = hub.held_for(uid);
            assert!(
                held <= per_user,
                "{held} bytes are held for user {uid}, queue-per-user is {per_user}"
            );
        }
    }

    /// All that is held is counted.
    pub fn check_held(&self) {
        for uid in USERS {
            let mine = self.actors.iter().filter(|actor| {
                let room = &self.rooms[actor.room];
                let drops = room.drops() || room.dismissed || actor.receiver.is_unsure();
                // Of the others is not known what waits for them.
                let known = !actor.gone && !actor.is_cut_off() && !drops;
                actor.uid == uid && actor.is_open() && known
            });
            let held: usize = mine
                .map(|actor| actor.held_bytes(&self.rooms[actor.room].plan))
                .sum();
            let counted = self.world.hub.held_for(uid);
            assert!(
                held <= counted,
                "{held} bytes are held for user {uid}, {counted} are counted"
            );
        }
    }

    /// What is missing was counted, and nothing else was.
    pub fn check_dropped(&self, room: &Room) {
        if room.dismissed {
            return;
        }
        let counted = self.world.hub.sockets()[room.place].counters().dropped() as usize;
        let counted = counted - room.dropped_before;
        if !room.ever_dropped {
            assert_eq!(counted, 0, "something was dropped");
            return;
        }
        let here = || self.actors.iter().filter(|actor| actor.room == room.index);
        let known: usize = here().map(|actor| actor.receiver.dropped).sum();
        let open: usize = here().map(|actor| actor.receiver.open()).sum();
        if room.lags(&self.world) {
            return;
        }
        if room.plan.bytewise() {
            // A message was what one read brought; how many bytes that were is not known.
            assert!(
                (counted > 0) || known == 0,
                "{known} bytes are missing, none is counted"
            );
            assert!(
                counted <= known + open,
                "{counted} are counted, {known} bytes missing"
            );
        } else {
            assert!(
                known <= counted && counted <= known + open,
                "{counted} messages are counted as dropped, {known} to {} are missing",
                known + open
            );
        }
    }

    /// In the end every message that was read whole was taken or is counted.
    pub fn check_counters(&self) {
        for room in &self.rooms {
            let countable = !room.dismissed && !room.came_after;
            if !countable || room.plan.is(ServiceKind::Echo) || room.plan.bytewise() {
                continue;
            }
            let mine = || self.actors.iter().filter(|actor| actor.room == room.index);
            let untaken: usize = mine()
                .map(|actor: &Actor| actor.whole() - actor.taken)
                .sum();
            // Too long ones that came behind others were not judged yet.
            let too_long = mine().filter(|actor| actor.too_long).count();
            let too_long = too_long + mine().map(|actor| actor.behind).sum::<usize>();
            let counted = self.world.hub.sockets()[room.place].counters().untaken as usize;
            assert!(
                (untaken..=untaken + too_long).contains(&counted),
                "{untaken} messages were read and not taken, {counted} are counted"
            );
        }
    }
}
