//! The building blocks of a metric: counters and gauges as relaxed atomics, sets of them indexed by an enum, and
//! their way into the `prometheus` crate's families. A hot path touches one atomic: no map, no string, no lock.

use std::marker::PhantomData;
use std::ops::Index;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use prometheus::proto;

/// Prefix of every metric name (interface.md section 4).
pub const PREFIX: &str = "tombolo_";

/// Only ever rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `count`: once per burst rather than once per message.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes over a count that is kept elsewhere.
    pub fn catch_up(&self, count: u64) {
        self.0.fetch_max(count, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one away.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Adds `delta`, which may be negative.
    pub fn add(&self, delta: i64) {
        self.0.fetch_add(delta, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Replaces the value by a count; above `i64::MAX` it stays there.
    pub fn set_count(&self, value: u64) {
        self.set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// The value now.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A duration or a moment, kept in milliseconds, shown in seconds.
#[derive(Debug, Default)]
pub struct SecondsGauge(AtomicU64);

impl SecondsGauge {
    /// Replaces the value.
    pub fn set_ms(&self, milliseconds: u64) {
        self.0.store(milliseconds, Ordering::Relaxed);
    }

    /// The value now, in milliseconds.
    #[must_use]
    pub fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A share of a whole, from 0 to 1.
#[derive(Debug, Default)]
pub struct Ratio(AtomicU64);

impl Ratio {
    /// Replaces the value by `part` of `whole`; nothing of nothing is 0.
    pub fn set(&self, part: u64, whole: u64) {
        let ratio = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        self.0.store(ratio.to_bits(), Ordering::Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Upper bounds of the buckets of a [`SecondsHistogram`], in microseconds.
const BUCKETS_US: [u64; 18] = [
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// How long things took, counted in microseconds, shown in seconds.
#[derive(Debug, Default)]
pub struct SecondsHistogram {
    /// Not cumulative; the last has what is above all bounds.
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl SecondsHistogram {
    /// So many things took so long each.
    pub fn observe_ms(&self, milliseconds: u64, count: u64) {
        self.observe_us(milliseconds.saturating_mul(1000), count);
    }

    /// The same of what takes less.
    pub fn observe_us(&self, microseconds: u64, count: u64) {
        let index = BUCKETS_US.partition_point(|bound| *bound < microseconds);
        self.buckets[index].fetch_add(count, Ordering::Relaxed);
        self.sum_us.fetch_add(microseconds.saturating_mul(count), Ordering::Relaxed);
    }

    /// The sum of all times, in microseconds.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Ordering::Relaxed)
    }

    /// How many things there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }
}

/// A small fixed set of label values: an enum, or a pair of enums.
pub trait Label: Copy {
    /// How many values there are.
    const COUNT: usize;

    /// Position of this value, below [`Label::COUNT`].
    fn index(self) -> usize;

    /// Label names and values at `index`.
    fn pairs(index: usize, push: &mut dyn FnMut(&'static str, &'static str));
}

impl<A: Label, B: Label> Label for (A, B) {
    const COUNT: usize = A::COUNT * B::COUNT;

    fn index(self) -> usize {
        self.0.index() * B::COUNT + self.1.index()
    }

    fn pairs(index: usize, push: &mut dyn FnMut(&'static str, &'static str)) {
        A::pairs(index / B::COUNT, push);
        B::pairs(index % B::COUNT, push);
    }
}

/// One `T` per value of `L`; aligned so that two sets do not share a cache line.
#[derive(Debug)]
#[repr(align(64))]
pub struct Set<T, L, const N: usize> {
    values: [T; N],
    label: PhantomData<fn(L)>,
}

/// One counter per value of `L`.
pub type CounterSet<L, const N: usize> = Set<Counter, L, N>;
/// One gauge per value of `L`.
pub type GaugeSet<L, const N: usize> = Set<Gauge, L, N>;

impl<T: Default, L: Label, const N: usize> Default for Set<T, L, N> {
    fn default() -> Self {
        const { assert!(N == L::COUNT, "one value per label") };
        Self { values: std::array::from_fn(|_| T::default()), label: PhantomData }
    }
}

impl<T, L: Label, const N: usize> Index<L> for Set<T, L, N> {
    type Output = T;

    fn index(&self, label: L) -> &T {
        &self.values[label.index()]
    }
}

/// Exactly one of the values of `L` holds; shown as 1 for it and 0 for the others.
#[derive(Debug)]
pub struct StateGauge<L> {
    current: AtomicUsize,
    label: PhantomData<fn(L)>,
}

impl<L: Label> StateGauge<L> {
    /// Starts in `state`.
    #[must_use]
    pub fn new(state: L) -> Self {
        Self { current: AtomicUsize::new(state.index()), label: PhantomData }
    }

    /// Moves to `state`.
    pub fn set(&self, state: L) {
        self.current.store(state.index(), Ordering::Relaxed);
    }

    /// Whether `state` is the current one.
    #[must_use]
    pub fn is(&self, state: L) -> bool {
        self.current.load(Ordering::Relaxed) == state.index()
    }
}

/// One row of a family: labels that all its samples carry, and the series behind it.
pub(super) struct Row<'a, S> {
    pub(super) labels: &'a [(&'a str, &'a str)],
    pub(super) series: &'a S,
}

/// What can be written as the samples of one family.
pub(super) trait Series {
    const KIND: proto::MetricType;

    fn samples(&self, base: &[(&str, &str)], out: &mut Vec<proto::Metric>);
}

impl Series for Counter {
    const KIND: proto::MetricType = proto::MetricType::COUNTER;

    fn samples(&self, base: &[(&str, &str)], out: &mut Vec<proto::Metric>) {
        out.push(sample(Self::KIND, labels(base), self.value() as f64));
    }
}

impl Series for Gauge {
    const KIND: proto::MetricType = proto::MetricType::GAUGE;

    fn samples(&self, base: &[(&str, &str)], out: &mut Vec<proto::Metric>) {
        out.push(sample(Self::KIND, labels(base), self.value() as f64));
    }
}

impl Series for SecondsGauge {
    const KIND: proto::MetricType = proto::MetricType::GAUGE;

    fn samples(&self, base: &[(&str, &str)], out: &mut Vec<proto::Metric>) {
        out.push(sample(Self::KIND, labels(base), self.ms() as f64 / 1000.0));
    }
}

impl Series for Ratio {
    const KIND: proto::MetricType = proto::MetricType::GAUGE;

    fn samples(&self, base: &[(&str, &str)], out: &mut Vec<proto::Metric>) {
        out.push(sample(Self::KIND, labels(base), self.value()));
    }
}

impl Series for SecondsHistogram {
    const KIND: proto::MetricType = proto::MetricType::HISTOGRAM;

    fn samples(&self, base: &[(&str, &str)], out: &mut Vec<proto::Metric>) {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(BUCKETS_US.len());
        for (bound, bucket) in BUCKETS_US.iter().zip(&self.buckets) {
            count += bucket.load(Ordering::Relaxed);
            let mut shown = proto::Bucket::default();
            shown.set_cumulative_count(count);
            shown.set_upper_bound(*bound as f64 / 1e6);
            buckets.push(shown);
        }
        count += self.buckets[BUCKETS_US.len()].load(Ordering::Relaxed);
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(self.sum_us() as f64 / 1e6);
        let mut metric = proto::Metric::from_label(labels(base));
        metric.set_histogram(histogram);
        out.push(metric);
    }
}

impl<T: Series, L: Label, const N: usize> Series for Set<T, L, N> {
    const KIND: proto::MetricType = T::KIND;

    fn samples(&self, base: &[(&str, &str)], out: &mut Vec<proto::Metric>) {
        for (index, value) in self.values.iter().enumerate() {
            let mut all = base.to_vec();
            L::pairs(index, &mut |name, value| all.push((name, value)));
            value.samples(&all, out);
        }
    }
}

impl<L: Label> Series for StateGauge<L> {
    const KIND: proto::MetricType = proto::MetricType::GAUGE;

    fn samples(&self, base: &[(&str, &str)], out: &mut Vec<proto::Metric>) {
        let current = self.current.load(Ordering::Relaxed);
        for index in 0..L::COUNT {
            let mut all = base.to_vec();
            L::pairs(index, &mut |name, value| all.push((name, value)));
            out.push(sample(Self::KIND, labels(&all), f64::from(u8::from(index == current))));
        }
    }
}

/// Families in the order they were added.
#[derive(Default)]
pub(super) struct Families(Vec<proto::MetricFamily>);

impl Families {
    /// Adds the family `name` with the samples of every row; nothing if there is no row.
    pub(super) fn add<S: Series>(&mut self, name: &str, help: &str, rows: &[Row<'_, S>]) {
        let mut samples = Vec::new();
        for row in rows {
            row.series.samples(row.labels, &mut samples);
        }
        self.push(name, help, S::KIND, samples);
    }

    /// Adds a gauge of one sample, read at scrape time.
    pub(super) fn gauge(&mut self, name: &str, help: &str, base: &[(&str, &str)], value: f64) {
        let kind = proto::MetricType::GAUGE;
        self.push(name, help, kind, vec![sample(kind, labels(base), value)]);
    }

    /// Adds a counter of the threads for input and output, read at scrape time.
    pub(super) fn threads(&mut self, name: &str, help: &str, values: &[f64]) {
        let kind = proto::MetricType::COUNTER;
        let of =
            |(index, value): (usize, &f64)| sample(kind, labels(&[("thread", &index.to_string())]), *value);
        self.push(name, help, kind, values.iter().enumerate().map(of).collect());
    }

    fn push(&mut self, name: &str, help: &str, kind: proto::MetricType, samples: Vec<proto::Metric>) {
        if samples.is_empty() {
            return;
        }
        let mut family = proto::MetricFamily::default();
        family.set_name(format!("{PREFIX}{name}"));
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(samples);
        self.0.push(family);
    }

    /// The text format.
    pub(super) fn encode(&self) -> String {
        // The encoder refuses families without name or samples only, and `push` lets neither through.
        prometheus::TextEncoder::new().encode_to_string(&self.0).unwrap_or_default()
    }
}

fn labels(pairs: &[(&str, &str)]) -> Vec<proto::LabelPair> {
    pairs
        .iter()
        .map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}

fn sample(kind: proto::MetricType, labels: Vec<proto::LabelPair>, value: f64) -> proto::Metric {
    let mut metric = proto::Metric::from_label(labels);
    if kind == proto::MetricType::COUNTER {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}
