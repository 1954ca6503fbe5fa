//! Limits of attempts: what they hold, and above all what they do not.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const POLICY: Policy =
    Policy { enable: true, lockout_failures: 10, lockout_window_ms: 600_000, lockout_ms: 900_000 };

fn at(a: u8, b: u8, c: u8, d: u8) -> Source {
    Source::of(Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))))
}

fn now(ms: u64) -> Now {
    Now { mono_ms: ms, unix_ms: 0 }
}

#[test]
fn a_name_is_delayed_twice_as_long_by_each_failure() {
    let (mut attempts, here) = (Attempts::default(), at(10, 0, 0, 1));
    let mut time = 1_000;
    for _ in 0..PAIR_BURST {
        assert_eq!(attempts.check(&POLICY, here, Some("u"), now(time)), Ok(()));
        attempts.failed(&POLICY, here, Some("u"), now(time));
    }
    for delay in [1_000, 2_000, 4_000, 8_000] {
        assert_eq!(attempts.check(&POLICY, here, Some("u"), now(time)), Ok(()));
        attempts.failed(&POLICY, here, Some("u"), now(time));
        assert_eq!(attempts.check(&POLICY, here, Some("u"), now(time + delay - 1)), Err(Held::User));
        time += delay;
    }
    assert_eq!(attempts.check(&POLICY, here, Some("another"), now(time - 1)), Ok(()));
}

#[test]
fn the_longest_delay_is_five_minutes_and_what_was_counted_is_forgotten() {
    let (mut attempts, here) = (Attempts::default(), at(10, 0, 0, 1));
    let policy = Policy { lockout_failures: u32::MAX, ..POLICY };
    for _ in 0..100 {
        attempts.failed(&policy, here, Some("u"), now(0));
    }
    assert_eq!(attempts.check(&policy, here, Some("u"), now(DELAY_MS_MAX - 1)), Err(Held::User));
    assert_eq!(attempts.check(&policy, here, Some("u"), now(DELAY_MS_MAX)), Ok(()));
    let quiet = DELAY_MS_MAX + 40 * FORGET_MS;
    attempts.failed(&policy, here, Some("u"), now(quiet));
    assert_eq!(attempts.check(&policy, here, Some("u"), now(quiet)), Ok(()), "as if it were the first");
}

#[test]
fn neighbours_are_one_source_and_a_user_who_logged_in_there_is_not() {
    let mut attempts = Attempts::default();
    attempts.succeeded(&POLICY, at(10, 0, 0, 9), "alice", now(0));
    for n in 0..SOURCE_BURST + 3 {
        attempts.failed(&POLICY, at(10, 0, 0, (n % 200) as u8), Some(&n.to_string()), now(0));
    }
    assert_eq!(attempts.check(&POLICY, at(10, 0, 0, 200), Some("new"), now(1)), Err(Held::Source));
    assert_eq!(attempts.check(&POLICY, at(10, 0, 0, 200), None, now(1)), Err(Held::Source));
    assert_eq!(attempts.check(&POLICY, at(10, 0, 0, 9), Some("alice"), now(1)), Ok(()));
    assert_eq!(attempts.check(&POLICY, at(10, 0, 1, 200), Some("new"), now(1)), Ok(()));
    let v6 = |text: &str| Source::of(Some(text.parse().unwrap()));
    assert_eq!(v6("2001:db8::1").block, v6("2001:db8::ffff:1").block);
    assert_ne!(v6("2001:db8::1").block, v6("2001:db8:0:1::1").block);
    assert_eq!(v6("::ffff:10.0.0.1"), at(10, 0, 0, 1));
}

#[test]
fn a_name_that_fails_from_everywhere_is_locked_out_for_those_who_failed() {
    let mut attempts = Attempts::default();
    let told: Vec<bool> =
        (0..12).map(|n| attempts.failed(&POLICY, at(1, 1, n, 1), Some("u"), now(5)).locked_out).collect();
    assert_eq!(told.iter().position(|told| *told), Some(9));
    assert_eq!(told.iter().filter(|told| **told).count(), 1, "told once");
    assert_eq!(attempts.locked_out(now(5)), 1);
    assert_eq!(attempts.check(&POLICY, at(1, 1, 3, 77), Some("u"), now(6)), Err(Held::Lockout));
    assert_eq!(attempts.check(&POLICY, at(9, 9, 9, 9), Some("u"), now(6)), Ok(()), "never failed");
    assert_eq!(attempts.check(&POLICY, at(1, 1, 3, 77), Some("v"), now(6)), Ok(()));
    assert_eq!(attempts.check(&POLICY, at(1, 1, 3, 77), Some("u"), now(900_005)), Ok(()), "over by itself");
    assert!(attempts.unlock("u") && !attempts.unlock("u"));
    assert_eq!(attempts.check(&POLICY, at(1, 1, 3, 77), Some("u"), now(6)), Ok(()), "unlocked");
}

#[test]
fn failures_within_the_window_count_and_slower_ones_do_not() {
    let mut attempts = Attempts::default();
    for n in 0..100u8 {
        let time = now(u64::from(n) * 67_000);
        assert!(!attempts.failed(&POLICY, at(1, 1, n, 1), Some("u"), time).locked_out, "{n}");
    }
}

#[test]
fn what_is_remembered_is_bounded_and_forgotten() {
    let mut attempts = Attempts::default();
    let mut evicted = 0;
    for n in 0..60_000u32 {
        let [_, b, c, d] = n.to_be_bytes();
        evicted += attempts.failed(&POLICY, at(b, c, d, 1), Some(&n.to_string()), now(1)).evicted;
    }
    assert!(attempts.pairs.len() <= PAIRS_MAX && attempts.sources.len() <= SOURCES_MAX);
    assert!(attempts.names.len() <= NAMES_MAX);
    assert_eq!(evicted, 10_000 + 40_000 + 40_000);
    attempts.expire(&POLICY, now(10_000_000));
    assert!(attempts.is_empty());
}

#[test]
fn no_more_are_verified_at_a_time_than_may_fail() {
    let (mut attempts, here) = (Attempts::default(), at(10, 0, 0, 1));
    let begin = |attempts: &mut Attempts, time| attempts.begin(&POLICY, here, Some("u"), now(time));
    let tickets: Vec<Ticket> =
        (0..=PAIR_BURST).map(|_| begin(&mut attempts, 1).unwrap().0.unwrap()).collect();
    assert_eq!(begin(&mut attempts, 1), Err(Hindrance::Wait), "those before may fail");
    assert!(attempts.begin(&POLICY, here, Some("v"), now(1)).is_ok(), "another name");
    assert!(attempts.begin(&POLICY, at(10, 9, 0, 1), Some("u"), now(1)).is_ok(), "from elsewhere");
    attempts.over(&tickets[0]);
    let right = begin(&mut attempts, 1).unwrap().0.unwrap();
    assert_eq!(begin(&mut attempts, 1), Err(Hindrance::Wait));
    for ticket in &tickets[1..] {
        attempts.failed_with(&POLICY, ticket, now(1));
        attempts.over(ticket);
    }
    attempts.over(&right);
    assert!(begin(&mut attempts, 1).is_ok(), "the burst failed");
    let last = begin(&mut attempts, 1);
    assert_eq!(last, Err(Hindrance::Wait), "after that one there is a delay");
}

#[test]
fn a_source_that_failed_is_looked_at_one_by_one_and_whoever_is_known_there_is_not() {
    let mut attempts = Attempts::default();
    attempts.succeeded(&POLICY, at(10, 0, 0, 9), "alice", now(0));
    for n in 0..SOURCE_BURST {
        attempts.failed(&POLICY, at(10, 0, 0, 1), Some(&n.to_string()), now(0));
    }
    assert!(attempts.begin(&POLICY, at(10, 0, 0, 1), Some("x"), now(1)).is_ok());
    assert_eq!(attempts.begin(&POLICY, at(10, 0, 0, 2), Some("y"), now(1)), Err(Hindrance::Wait));
    assert!(attempts.begin(&POLICY, at(10, 0, 0, 9), Some("alice"), now(1)).is_ok());
}

#[test]
fn an_attempt_that_was_right_leaves_nothing() {
    let mut attempts = Attempts::default();
    let (ticket, _) = attempts.begin(&POLICY, at(1, 1, 1, 1), Some("u"), now(1)).unwrap();
    attempts.over(&ticket.unwrap());
    assert!(attempts.is_empty());
}

#[test]
fn a_good_login_forgives_the_delay_and_leaves_the_burst_used_up() {
    let (mut attempts, here) = (Attempts::default(), at(10, 0, 0, 1));
    attempts.succeeded(&POLICY, here, "u", now(0));
    for time in [0; 5].into_iter().chain([0, 1_000, 3_000]) {
        attempts.failed(&POLICY, here, Some("u"), now(time));
    }
    assert_eq!(attempts.check(&POLICY, here, Some("u"), now(6_999)), Err(Held::User));
    attempts.succeeded(&POLICY, here, "u", now(7_000));
    attempts.failed(&POLICY, here, Some("u"), now(7_000));
    assert_eq!(attempts.check(&POLICY, here, Some("u"), now(7_999)), Err(Held::User), "no fresh burst");
    assert_eq!(attempts.check(&POLICY, here, Some("u"), now(8_000)), Ok(()), "the delay is the first");
}

#[test]
fn many_names_from_many_sources_flush_no_lock_out() {
    let mut attempts = Attempts::default();
    for n in 0..10 {
        attempts.failed(&POLICY, at(1, 1, n, 1), Some("victim"), now(0));
    }
    for n in 0..60_000u32 {
        let [_, b, c, d] = n.to_be_bytes();
        attempts.failed(&POLICY, at(b, c, d, 1), Some(&n.to_string()), now(u64::from(n)));
    }
    assert_eq!(attempts.locked_out(now(60_000)), 1);
    // What failed last is remembered, and what failed first is not.
    assert!(attempts.names.contains(&name_of("59999")) && !attempts.names.contains(&name_of("0")));
}

#[test]
fn switched_off_nothing_is_counted() {
    let (mut attempts, off) = (Attempts::default(), Policy { enable: false, ..POLICY });
    for _ in 0..1_000 {
        assert_eq!(attempts.failed(&off, at(1, 1, 1, 1), Some("u"), now(0)), Noted::default());
    }
    assert_eq!(attempts.check(&off, at(1, 1, 1, 1), Some("u"), now(0)), Ok(()));
    assert!(attempts.is_empty());
}

/// Somebody fails, from somewhere, after some time.
fn attack() -> impl Strategy<Value = Vec<(u8, u8, u64)>> {
    prop::collection::vec((0u8..40, 1u8..255, 0u64..20_000), 0..400)
}

proptest! {
    /// A10: whatever others do elsewhere, a victim with the right password is verified wherever it comes from.
    #[test]
    fn no_stranger_elsewhere_keeps_the_victim_out(attack in attack()) {
        let (mut attempts, mut time) = (Attempts::default(), 0);
        for (block, host, pause) in attack {
            time += pause;
            let from = at(10, 0, block, host);
            if attempts.check(&POLICY, from, Some("victim"), now(time)).is_ok() {
                attempts.failed(&POLICY, from, Some("victim"), now(time));
            }
            prop_assert_eq!(attempts.check(&POLICY, at(10, 1, 0, 1), Some("victim"), now(time)), Ok(()));
        }
    }

    /// A10: even neighbours do not keep out one who logged in from its own address before.
    #[test]
    fn no_neighbour_keeps_a_known_victim_out(attack in attack(), home in 1u8..255) {
        let (mut attempts, mut time) = (Attempts::default(), 0);
        attempts.succeeded(&POLICY, at(10, 0, 0, home), "victim", now(0));
        for (name, host, pause) in attack {
            time += pause;
            if host != home {
                let name = if name < 20 { "victim".to_owned() } else { name.to_string() };
                attempts.failed(&POLICY, at(10, 0, 0, host), Some(&name), now(time));
            }
            prop_assert_eq!(attempts.check(&POLICY, at(10, 0, 0, home), Some("victim"), now(time)), Ok(()));
        }
    }

    /// A9: a source that never stops has few guesses at a name: the burst, the delays that double, then one in five
    /// minutes.
    #[test]
    fn guesses_are_few_however_often_one_tries(pauses in prop::collection::vec(1u64..2_000, 1_000)) {
        let (mut attempts, mut time, mut guesses) = (Attempts::default(), 0, 0u64);
        let policy = Policy { lockout_failures: u32::MAX, ..POLICY };
        for pause in pauses {
            time += pause;
            if attempts.check(&policy, at(10, 0, 0, 1), Some("victim"), now(time)).is_ok() {
                attempts.failed(&policy, at(10, 0, 0, 1), Some("victim"), now(time));
                guesses += 1;
            }
        }
        prop_assert!(guesses <= u64::from(PAIR_BURST) + 10 + time / DELAY_MS_MAX, "{guesses} in {time} ms");
    }
}
