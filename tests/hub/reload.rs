//! A changed file under running clients: who stays and by what rules, who gets what it is owed and is
//! closed, and that nothing is left of them.

use udsd::{limits::Limits, peer::Peer};

use crate::{
    datagrams::Datagram,
    world::{Client, PEER, SECOND, World, collect_socket, lines},
};

/// An echo of lines.
fn echo(keys: &str) -> String {
    socket("s", &format!("framing = \"lines\"\n{keys}"))
}

fn relay(keys: &str) -> String {
    socket(
        "s",
        &format!("service = \"relay\"\nframing = \"lines\"\nmessage-size = \"16B\"\n{keys}"),
    )
}

fn socket(name: &str, keys: &str) -> String {
    format!("[socket.{name}]\npath = \"/run/{name}\"\n{keys}\n")
}

const SMALL: &str = "message-size = \"16B\"\nqueue-size = \"40B\"";

/// A client that is owed more than it has room for, with messages that wait behind that.
fn owed(world: &mut World, socket: usize) -> Client {
    let client = world.enter(socket);
    client.wire.borrow_mut().capacity = 10;
    client.send(&lines(100..120));
    world.settle();
    client
}

fn take_all(world: &mut World, client: &Client) {
    while client.take(7) > 0 {
        world.settle();
    }
}

#[test]
fn rules_apply_to_newcomers_and_nobody_who_is_here_is_closed_for_them() {
    let mut world = World::new(&echo(""));
    let here = [world.enter(0), world.enter(0)];
    world.reload(&echo("clients = 1"));
    assert!(world.try_enter(0, PEER, &[]).0.is_none());
    world.reload(&echo("allow-users = [9]"));
    assert!(world.try_enter(0, PEER, &[]).0.is_none());
    let nine = Peer { uid: 9, ..PEER };
    assert!(world.try_enter(0, nine, &[]).0.is_some());
    world.reload_with(&echo(""), &Limits::new(3, 9));
    assert!(world.try_enter(0, PEER, &[]).0.is_none());
    world.reload_with(&echo(""), &Limits::new(9, 2));
    assert!(world.try_enter(0, PEER, &[]).0.is_none());
    assert!(world.try_enter(0, nine, &[]).0.is_some());
    for client in here {
        client.send(b"here\n");
        world.settle();
        client.take(99);
        assert_eq!(client.got(), b"here\n");
    }
    let counters = world.counters();
    // Counts go on.
    assert_eq!(
        (counters.clients, counters.refused(), counters.messages),
        (4, 4, 2)
    );
}

#[test]
fn whose_service_or_framing_changed_gets_what_it_is_owed_and_an_end() {
    for changed in [
        socket("s", "framing = \"nul\""),
        socket("s", "framing = \"lines\"\nservice = \"relay\""),
        socket("s", "type = \"seqpacket\""),
        collect_socket("").replace("log", "s"),
    ] {
        let mut world = World::new(&echo(SMALL));
        let (client, idle) = (owed(&mut world, 0), world.enter(0));
        client.send(b"never read\n");
        idle.send(b"unfin");
        world.settle();
        let delivered = world.counters().messages as usize;
        world.reload(&changed);
        world.settle();
        assert!(idle.is_closed(), "{changed}");
        assert!(!client.is_closed(), "{changed}");
        let place = world.hub.key("s").unwrap();
        let new = world.enter(place);
        take_all(&mut world, &client);
        assert_eq!(client.got(), lines(100..100 + delivered), "{changed}");
        assert_eq!(client.hung_up(), Some(11), "{changed}");
        assert!(client.is_closed());
        let counters = world.counters();
        assert_eq!(counters.untaken, 20 - delivered as u64, "{changed}");
        assert_eq!((counters.unfinished, counters.unread), (1, 11), "{changed}");
        assert_eq!((counters.clients, counters.closed()), (3, 0), "{changed}");
        assert!(!new.is_closed());
        new.finish();
        world.settle();
        if changed.contains("relay") {
            let now = world.now();
            world.hub.abandon(now);
        }
        world.assert_empty();
        assert_eq!(world.hub.sockets().len(), 1);
    }
}

#[test]
fn who_is_dismissed_and_does_not_read_is_closed_by_slow_timeout() {
    let mut world = World::new(&echo(&format!("{SMALL}\nslow-timeout = \"10s\"")));
    let client = owed(&mut world, 0);
    world.reload(&socket("s", "framing = \"nul\""));
    world.settle();
    world.pass(9 * SECOND);
    assert!(!client.is_closed());
    world.pass(SECOND);
    assert!(client.is_closed());
    world.turn();
    assert_ne!(world.counters().undelivered, 0);
    world.assert_empty();
}

#[test]
fn a_socket_that_is_gone_lets_its_clients_finish_and_its_place_be_used_again() {
    let both = socket("a", "") + &echo(SMALL);
    let mut world = World::new(&both);
    let (stays, goes) = (world.enter(0), owed(&mut world, 1));
    world.reload(&socket("a", ""));
    world.settle();
    let b = socket("a", "") + &socket("b", "framing = \"lines\"");
    world.reload(&b);
    // Somebody is left in the old place.
    assert_eq!(world.hub.key("b"), Some(2));
    let new = world.enter(2);
    take_all(&mut world, &goes);
    assert!(goes.is_closed());
    world.settle();
    world.turn();
    world.reload(&(b + &socket("c", "")));
    assert_eq!(world.hub.key("c"), Some(1));
    assert_eq!(world.hub.sockets()[1].counters().clients, 0);
    for client in [stays, new] {
        client.send(b"here\n");
        world.settle();
        client.take(99);
        assert_eq!(client.got(), b"here\n");
        client.finish();
    }
    world.settle();
    world.assert_empty();
}

#[test]
fn a_socket_that_is_gone_waits_for_the_counts_of_the_one_before_it() {
    let mut world = World::new(&echo(SMALL));
    let client = owed(&mut world, 0);
    world.reload(&socket("s", "framing = \"nul\""));
    let second = world.hub.key("s").unwrap();
    world.reload(&socket("other", ""));
    assert!(world.hub.sockets().contains(second));
    take_all(&mut world, &client);
    assert!(client.is_closed());
    world.turn();
    world.turn();
    assert_eq!(world.hub.sockets().len(), 1);
}

#[test]
fn who_waited_for_its_own_queue_goes_on_when_messages_are_dropped_from_now_on() {
    let mut world = World::new(&echo(SMALL));
    let client = owed(&mut world, 0);
    assert_eq!(world.counters().dropped(), 0);
    world.reload(&echo(&format!("{SMALL}\nslow-client = \"drop\"")));
    world.settle();
    let counters = world.counters();
    assert!(counters.dropped() > 0 && counters.untaken == 0);
    assert!(!client.is_closed());
}

#[test]
fn a_name_that_comes_back_is_another_socket() {
    let mut world = World::new(&echo(SMALL));
    let client = owed(&mut world, 0);
    world.reload(&socket("other", ""));
    world.reload(&echo(SMALL));
    assert_eq!(world.hub.key("s"), Some(2));
    assert_eq!(world.hub.sockets()[2].counters().clients, 0);
    let new = world.enter(2);
    take_all(&mut world, &client);
    assert!(client.is_closed() && !new.is_closed());
}

#[test]
fn a_message_begun_under_a_larger_limit_is_delivered_whole_and_the_next_one_judged_by_the_new() {
    let mut world = World::new(&echo("message-size = \"100B\"\nqueue-size = \"200B\""));
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 20;
    client.send(&[b'x'; 80]);
    world.settle();
    world.reload(&echo(SMALL));
    client.send(&[b'x'; 15]);
    client.send(b"\nnext\n");
    world.settle();
    take_all(&mut world, &client);
    let mut expected = vec![b'x'; 95];
    expected.extend(b"\nnext\n");
    assert_eq!(client.got(), expected);
    client.send(&[b'x'; 17]);
    world.settle();
    assert!(client.is_closed());
    assert_eq!(world.counters().oversized, 1);
    world.assert_empty();
}

#[test]
fn a_relay_delivers_a_message_longer_than_the_new_queue_size() {
    for policy in ["wait", "disconnect", "drop"] {
        let keys = |sizes: &str| {
            let policy = format!("slow-client = \"{policy}\"");
            relay("").replace("message-size = \"16B\"\n", sizes) + &policy
        };
        let mut world = World::new(&keys("message-size = \"100B\"\nqueue-size = \"200B\"\n"));
        let (sender, receiver) = (world.enter(0), world.enter(0));
        receiver.wire.borrow_mut().capacity = 20;
        sender.send(&[b'x'; 80]);
        world.settle();
        world.reload(&keys("message-size = \"16B\"\nqueue-size = \"40B\"\n"));
        sender.send(b"\n");
        world.settle();
        take_all(&mut world, &receiver);
        sender.send(b"next\n");
        world.settle();
        take_all(&mut world, &receiver);
        let mut expected = vec![b'x'; 80];
        expected.extend(b"\nnext\n");
        assert_eq!(receiver.got(), expected, "{policy}");
    }
}

#[test]
fn a_smaller_queue_size_drops_nothing_and_adds_nothing_until_there_is_room() {
    let mut world = World::new(&echo("message-size = \"16B\"\nqueue-size = \"1000B\""));
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(&lines(100..200));
    world.settle();
    world.reload(&echo(SMALL));
    client.send(&lines(200..210));
    world.settle();
    assert_eq!(world.counters().messages, 110 - 10);
    take_all(&mut world, &client);
    assert_eq!(client.got(), lines(100..210));
}

#[test]
fn senders_of_a_relay_go_on_when_nobody_is_to_wait_any_more() {
    for changed in ["slow-client = \"drop\"", "queue-size = \"4KiB\""] {
        let mut world = World::new(&relay("queue-size = \"40B\""));
        let (sender, slow, quick) = (world.enter(0), world.enter(0), world.enter(0));
        slow.wire.borrow_mut().capacity = 10;
        sender.send(&lines(100..200));
        world.settle();
        quick.take(usize::MAX);
        assert!(quick.got().len() < 400);
        world.reload(&relay(changed));
        world.settle();
        quick.take(usize::MAX);
        assert_eq!(quick.got(), lines(100..200), "{changed}");
        take_all(&mut world, &slow);
        assert_eq!(
            slow.got().len() as u64 + 4 * world.counters().dropped(),
            400,
            "{changed}"
        );
        assert!(!slow.is_closed());
    }
}

#[test]
fn who_holds_up_others_is_relieved_under_a_smaller_queue_size() {
    let mut world = World::new(&relay("queue-size = \"1000B\""));
    let (sender, slow) = (world.enter(0), world.enter(0));
    slow.wire.borrow_mut().capacity = 10;
    sender.send(&lines(100..400));
    world.settle();
    world.reload(&relay("queue-size = \"40B\""));
    world.settle();
    take_all(&mut world, &slow);
    assert_eq!(slow.got(), lines(100..400));
    sender.finish();
    slow.finish();
    world.settle();
}

#[test]
fn a_gap_is_told_in_its_place_when_stamps_or_dropping_end() {
    for changed in ["slow-client = \"drop\"", "stamp = true"] {
        let stamped = "slow-client = \"drop\"\nstamp = true\nqueue-size = \"700B\"";
        let mut world = World::new(&relay(stamped));
        let (sender, slow) = (world.enter(0), world.enter(0));
        slow.wire.borrow_mut().capacity = 10;
        sender.send(&lines(100..150));
        world.settle();
        let dropped = world.counters().dropped();
        assert_ne!(dropped, 0);
        world.reload(&relay(&format!("{changed}\nqueue-size = \"700B\"")));
        world.settle();
        sender.send(b"last\n");
        world.settle();
        take_all(&mut world, &slow);
        sender.send(b"after\n");
        world.settle();
        take_all(&mut world, &slow);
        let text = String::from_utf8(slow.got()).unwrap();
        let told = format!("{{\"gap\":{{\"count\":{dropped},");
        let gap = text.find(&told).unwrap_or_else(|| panic!("{text}"));
        let behind = text[gap..].find("after").expect("what came later");
        assert!(behind > 0 && !text[..gap].contains("after"));
        assert_eq!(world.counters().undelivered, 0);
        slow.vanish();
        sender.vanish();
        world.settle();
        world.assert_empty();
    }
}

#[test]
fn a_gap_is_told_to_who_is_dismissed() {
    let keys = "slow-client = \"drop\"\nstamp = true\nqueue-size = \"700B\"";
    let mut world = World::new(&relay(keys));
    let (sender, slow) = (world.enter(0), world.enter(0));
    slow.wire.borrow_mut().capacity = 10;
    sender.send(&lines(100..150));
    world.settle();
    let dropped = world.counters().dropped();
    world.reload(&echo(""));
    world.settle();
    assert!(sender.is_closed() && !slow.is_closed());
    take_all(&mut world, &slow);
    let text = String::from_utf8(slow.got()).unwrap();
    let told = format!("{{\"gap\":{{\"count\":{dropped},");
    assert!(text.lines().last().unwrap().starts_with(&told), "{text}");
    assert!(slow.is_closed());
    world.assert_empty();
}

#[test]
fn numbers_go_on_whatever_is_switched() {
    let number = |client: &Client| {
        client.take(usize::MAX);
        let text = String::from_utf8(client.got()).unwrap();
        let last = text.lines().last().unwrap().to_owned();
        let from = last.find("\"seq\":").map(|at| at + 6);
        from.map(|from| {
            last[from..]
                .split(',')
                .next()
                .unwrap()
                .parse::<u64>()
                .unwrap()
        })
    };
    let mut world = World::new(&relay("stamp = true"));
    let (sender, receiver) = (world.enter(0), world.enter(0));
    let say = |world: &mut World| {
        sender.send(b"x\n");
        world.settle();
        number(&receiver)
    };
    assert_eq!((say(&mut world), say(&mut world)), (Some(1), Some(2)));
    let record = "[socket.s.record]\nformat = \"json\"";
    world.reload(&relay(&format!("stamp = true\n{record}")));
    assert_eq!(say(&mut world), Some(3));
    assert_eq!(world.hub.record(0).unwrap().seq(), 3);
    world.reload(&relay(record));
    assert_eq!(say(&mut world), None);
    assert_eq!(world.hub.record(0).unwrap().seq(), 4);
    world.written(0);
    world.reload(&relay("stamp = true"));
    assert_eq!(say(&mut world), Some(5));
}

#[test]
fn idle_timeout_counts_from_the_reload_that_brings_it() {
    let mut world = World::new(&echo(""));
    let client = world.enter(0);
    world.pass(100 * SECOND);
    world.reload(&echo("idle-timeout = \"10s\""));
    world.settle();
    world.pass(9 * SECOND);
    // One that changes nothing does not put it off.
    world.reload(&echo("idle-timeout = \"10s\""));
    assert!(!client.is_closed());
    world.pass(SECOND);
    assert!(client.is_closed());
    let other = world.enter(0);
    world.reload(&echo(""));
    world.pass(100 * SECOND);
    assert!(!other.is_closed());
    assert_eq!(world.hub.deadline(), None);
}

#[test]
fn a_shorter_slow_timeout_holds_at_once() {
    let mut world = World::new(&echo(&format!("{SMALL}\nslow-timeout = \"1h\"")));
    let client = owed(&mut world, 0);
    world.pass(10 * SECOND);
    world.reload(&echo(&format!("{SMALL}\nslow-timeout = \"10s\"")));
    world.pass(SECOND);
    assert!(client.is_closed());
    world.assert_empty();
}

#[test]
fn who_awaits_a_quota_goes_on_when_it_is_raised_and_nothing_breaks_when_it_is_lowered() {
    let limits = |bytes| Limits::new(9, 9).with_queues(bytes, bytes);
    let text = echo("message-size = \"16B\"\nqueue-size = \"1000B\"");
    let mut world = World::with_limits(&text, limits(64));
    let client = world.enter(0);
    client.wire.borrow_mut().capacity = 10;
    client.send(&lines(100..150));
    world.settle();
    assert_ne!(client.unread() + world.hub.held(), 0);
    let before = world.counters().messages;
    world.reload_with(&text, &limits(16));
    world.settle();
    world.reload_with(&text, &limits(100_000));
    world.settle();
    assert_eq!(world.counters().messages, 50);
    assert!(before < 50);
    take_all(&mut world, &client);
    assert_eq!(client.got(), lines(100..150));
    assert_eq!(world.hub.held(), 0);
}

#[test]
fn who_awaits_a_quota_can_be_dismissed() {
    let limits = Limits::new(9, 9).with_queues(64, 64);
    let text = echo("message-size = \"16B\"\nqueue-size = \"1000B\"");
    let mut world = World::with_limits(&text, limits);
    let clients: Vec<Client> = (0..3).map(|_| owed(&mut world, 0)).collect();
    world.reload(&socket("other", ""));
    world.settle();
    for client in &clients {
        take_all(&mut world, client);
        assert!(client.is_closed());
    }
    assert_eq!(world.hub.held(), 0);
    world.assert_empty();
}

#[test]
fn senders_that_wait_for_a_record_go_on_without_it() {
    let record = "[socket.s.record]\nformat = \"raw\"\nqueue-size = \"128B\"";
    let mut world = World::new(&echo(&format!("message-size = \"64B\"\n{record}")));
    let clients: Vec<Client> = (0..4).map(|_| world.enter(0)).collect();
    for client in &clients {
        client.send(&lines(100..150));
    }
    world.settle();
    assert!(world.counters().messages < 200);
    world.reload(&echo(""));
    world.settle();
    for client in &clients {
        client.take(usize::MAX);
        assert_eq!(client.got(), lines(100..150));
    }
}

#[test]
fn a_record_is_kept_or_enlarged_and_senders_go_on() {
    let mut world = World::collect("queue-size = \"128B\"");
    let client = world.enter(0);
    client.send(&lines(100..200));
    world.settle();
    let before = world.records[0].len();
    assert!(before < 400);
    world.reload(&collect_socket("queue-size = \"128KiB\""));
    world.settle();
    assert_eq!(world.records[0], lines(100..200));
    assert_eq!(world.written(0), 400);
    let text = collect_socket("queue-size = \"128KiB\"").replace("raw", "json");
    world.reload(&text);
    client.send(b"json\n");
    world.settle();
    let json = String::from_utf8(world.records[0][400..].to_vec()).unwrap();
    assert!(json.contains("\"seq\":101,"), "{json}");
}

#[test]
fn packets_may_be_longer_from_the_next_one_on() {
    let keys = |size: usize| {
        socket(
            "s",
            &format!("type = \"seqpacket\"\nmessage-size = \"{size}B\"\nqueue-size = \"1MiB\""),
        )
    };
    let packet = |length: usize| {
        let mut bytes = (length as u32).to_be_bytes().to_vec();
        bytes.resize(4 + length, b'x');
        bytes
    };
    let mut world = World::new(&keys(16));
    let client = world.enter(0);
    client.send(&packet(17));
    world.settle();
    assert_eq!(world.counters().oversized, 1);
    // More than the read buffer had room for.
    world.reload(&keys(300_000));
    client.send(&packet(300_000));
    world.settle();
    client.take(usize::MAX);
    assert_eq!(client.got(), packet(300_000));
    world.reload(&keys(16));
    client.send(&packet(17));
    world.settle();
    assert_eq!(world.counters().oversized, 2);
    assert!(!client.is_closed());
}

#[test]
fn datagrams_are_judged_by_the_new_rules_at_once_and_waiting_answers_are_delivered() {
    let keys = |keys: &str| socket("s", &format!("type = \"datagram\"\n{keys}"));
    let mut d = Datagram::new("slow-timeout = \"1h\"");
    d.room("/a", 0);
    d.send("/a", "waits");
    d.settle();
    d.world
        .reload(&keys("allow-users = [9]\nslow-timeout = \"1h\""));
    d.send("/a", "kept out");
    d.settle();
    assert_eq!(d.world.counters().refused(), 1);
    let collect =
        "service = \"collect\"\nslow-timeout = \"1h\"\n[socket.s.record]\nformat = \"raw\"";
    d.world.reload(&keys(collect));
    d.send("/a", "recorded");
    d.settle();
    assert_eq!(d.world.records[0], b"recorded\n");
    assert_eq!(d.world.hub.undelivered(), 1);
    d.room("/a", 9);
    d.world.pass(SECOND);
    assert_eq!(d.got("/a"), ["waits"]);
    assert_eq!(d.world.hub.undelivered(), 0);
}

#[test]
fn a_datagram_socket_that_is_gone_still_delivers_its_answers() {
    let mut d = Datagram::new("slow-timeout = \"1h\"");
    d.room("/a", 0);
    d.send("/a", "waits");
    d.settle();
    d.send("/a", "unread");
    d.world.reload(&socket("other", ""));
    d.world.turn();
    assert_eq!(d.world.hub.sockets()[0].counters().unread, 6);
    assert!(d.world.hub.sockets().contains(0));
    d.room("/a", 9);
    d.world.pass(SECOND);
    d.world.turn();
    assert_eq!(d.got("/a"), ["waits"]);
    assert!(!d.world.hub.sockets().contains(0));
}

#[test]
fn held_datagrams_are_counted_when_the_service_changes() {
    let mut d = Datagram::collect("queue-size = \"128B\"");
    for n in 0..60 {
        d.send("/a", &format!("line {n}"));
    }
    d.settle();
    let taken = d.world.counters().messages;
    assert!(d.world.hub.undelivered() > 0);
    d.world.reload(&socket("s", "type = \"datagram\""));
    d.settle();
    assert_eq!(d.world.counters().untaken, 60 - taken);
    assert_eq!(d.world.hub.undelivered(), 0);
}

#[test]
fn nobody_is_told_of_what_is_stored_in_another_record_than_what_it_sent_before() {
    let socket = |name: &str, file: &str| {
        format!(
            "[socket.{name}]\npath = \"/run/{name}\"\nservice = \"collect\"\nframing = \"lines\"\nack = true\n\
             [socket.{name}.record]\nfile = \"/var/log/{file}\"\n"
        )
    };
    let mut world = World::new(&format!("{}{}", socket("a", "one"), socket("b", "one")));
    let (stays, leaves, idle) = (world.enter(0), world.enter(1), world.enter(1));
    for client in [&stays, &leaves] {
        client.send(b"stored later\n");
    }
    world.settle();
    world.reload(&format!("{}{}", socket("a", "one"), socket("b", "other")));
    world.settle();
    assert!(leaves.is_closed());
    assert_eq!(leaves.got(), b"");
    assert!(!stays.is_closed() && !idle.is_closed());
    while world.written(0) > 0 {
        world.settle();
    }
    stays.take(usize::MAX);
    assert_eq!(stays.got(), b"ok 1\n");
}

/// The numbers of a file have no hole, whoever writes it: what a socket had numbered elsewhere does not matter there.
#[test]
fn a_record_goes_on_with_its_own_numbers_whichever_sockets_write_it() {
    let socket = |name: &str, file: &str| {
        format!(
            "[socket.{name}]\npath = \"/run/{name}\"\nservice = \"collect\"\nframing = \"lines\"\n\
             [socket.{name}.record]\nfile = \"/var/log/{file}\"\n"
        )
    };
    let apart = socket("a", "one") + &socket("b", "two");
    let together = socket("a", "one") + &socket("b", "one");
    let seqs = |world: &World, place: usize| -> Vec<u64> {
        let text = String::from_utf8(world.records[place].clone()).unwrap();
        let lines = text.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["seq"].as_u64().unwrap()
        });
        lines.collect()
    };
    let last = socket("b", "one");
    for steps in [vec![&together, &last], vec![&last]] {
        let mut world = World::new(&apart);
        for (place, text) in [(0, &b"a\n"[..]), (1, b"b\nb\nb\n")] {
            world.enter(place).send(text);
            world.settle();
        }
        for file in steps {
            world.reload(file);
        }
        let place = world.hub.key("b").unwrap();
        world.enter(place).send(b"b\n");
        world.settle();
        assert_eq!(seqs(&world, place), [1, 2]);
    }
}
