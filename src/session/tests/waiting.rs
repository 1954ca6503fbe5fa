//! How long a message may wait that says nothing about it.

use super::*;

#[test]
fn a_message_without_expiry_waits_as_long_as_the_setting_says() {
    let limits = QueueLimits { wait_ms_max: Some(5_000), ..LIMITS };
    let mut bench = Bench { session: Session::new(Bounds::new(limits, true)), ..Bench::new() };
    for (payload, expiry) in [("over", None), ("its own", Some(9)), ("later", None)] {
        bench.now = bench.now.plus_ms(u64::from(payload == "later"));
        bench.deliver(payload, QoS::AtLeastOnce, expiry);
    }
    bench.now = bench.now.plus_ms(4_999);
    bench.attach(10, u32::MAX);
    assert_eq!(bench.take(), ["1 its own 4s", "1 later"], "no interval its publisher did not ask for");
}
