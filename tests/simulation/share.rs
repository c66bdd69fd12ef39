//! Rooms whose sockets share a record: who shares it now, and whose messages go on in another one.

use std::path::Path;

use udsd::config::{self, Record};

use crate::{
    plan::{Plan, Witness},
    schedule::Schedule,
    world::Random,
};

/// The file of the record that sockets share.
const FILE: &str = "/run/record";

impl Plan {
    /// As `random`, with a record that others have too.
    pub fn sharing(
        random: &mut Random,
        base: &config::Socket,
        number: usize,
        record: &Record,
    ) -> Self {
        loop {
            let mut plan = Plan::random(random, base, number);
            if plan.may_share() {
                plan.share(record);
                return plan;
            }
        }
    }

    /// Its messages go to a record like this, which others may have too.
    pub fn share(&mut self, record: &Record) {
        self.socket.record = Some(Record {
            file: Some(FILE.into()),
            ..record.clone()
        });
    }

    /// Whether its record has a file, which others may name too.
    pub fn is_sharing(&self) -> bool {
        let record = self.socket.record.as_ref();
        record.is_some_and(|of| of.file.as_deref() == Some(Path::new(FILE)))
    }

    /// Whether the model can follow it in a record that is shared. Stamps have numbers of their own there.
    pub fn may_share(&self) -> bool {
        self.witness == Witness::Record && !self.socket.stamp
    }
}

impl Schedule {
    /// The rooms whose sockets share the record.
    fn sharers(&self) -> Vec<usize> {
        let rooms = self.rooms.iter();
        let sharing = rooms.filter(|room| !room.dismissed && room.plan.is_sharing());
        sharing.map(|room| room.index).collect()
    }

    /// The record that is shared, if it is.
    pub fn shared(&self) -> Option<Record> {
        let first = *self.sharers().first()?;
        self.rooms[first].plan.socket.record.clone()
    }

    /// Who shares the record of room `i` has it as that is.
    pub fn unify(&mut self, i: usize) {
        if let Some(record) = self.rooms[i].plan.socket.record.clone()
            && self.rooms[i].plan.is_sharing()
        {
            for other in self.sharers() {
                self.rooms[other].plan.share(&record);
            }
        }
    }

    /// Room `i` leaves the record that is shared, or goes to it; or another goes with it to one.
    pub fn leave_or_share(&mut self, i: usize) {
        // As the event loop: at the end of a turn.
        self.world.turn();
        self.look();
        if !self.rooms[i].plan.may_share() {
            return;
        }
        if let Some(record) = &mut self.rooms[i].plan.socket.record
            && record.file.is_some()
        {
            record.file = None;
        } else {
            let others = self.rooms.iter();
            let mut others =
                others.filter(|of| of.index != i && !of.dismissed && of.plan.may_share());
            let other = others.next().map(|room| room.index);
            let record = self.shared().or_else(|| {
                let other = &mut self.rooms[other?].plan;
                let record = other.socket.record.clone()?;
                other.share(&record);
                Some(record)
            });
            if let Some(record) = record {
                self.rooms[i].plan.share(&record);
            }
        }
        self.apply(None, None);
    }

    /// Another file came into force: notes who shares a record now, and whose record is another one. Who was not
    /// told by then that all it sent is stored there is closed.
    pub fn note_records(&mut self) {
        let sharers = self.sharers();
        for i in 0..self.rooms.len() {
            let room = &mut self.rooms[i];
            if room.dismissed {
                continue;
            }
            let alone = vec![i];
            let now = if room.plan.is_sharing() {
                &sharers
            } else {
                &alone
            };
            room.sharers.clone_from(now);
            if room.record == self.world.record(room.place).0 {
                continue;
            }
            let actors = self.actors.iter_mut();
            for actor in actors.filter(|of| of.room == i && of.awaits_ack) {
                assert!(
                    !actor.is_open(),
                    "client {} is told of two records",
                    actor.number
                );
                actor.parted = true;
            }
            room.begin_record(&self.world);
        }
    }
}
