//! `cargo bench --bench streams`: the transports side by side, by criterion. For the whole picture see `report`.

mod common;

use std::time::Duration;

use common::{
    Contender, Job, Session,
    contender::{ONE_WAY, ROUND_TRIP},
    peer,
};
use criterion::{BenchmarkId, Criterion, Throughput};

fn session(contender: Contender, job: Job) -> Session {
    Session::open(contender, job).unwrap_or_else(|error| panic!("{contender}: {error}"))
}

fn one_way(criterion: &mut Criterion) {
    for bytes in [4 << 10, 64 << 10] {
        let mut group = criterion.benchmark_group(format!("one_way_{bytes}"));
        group.throughput(Throughput::Bytes(bytes as u64));
        for contender in ONE_WAY {
            group.bench_function(BenchmarkId::from_parameter(contender), |bencher| {
                let mut session = session(contender, Job::Sink(bytes));
                bencher.iter_custom(|messages| session.one_way(messages).expect("one way").elapsed);
            });
        }
    }
}

fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round_trip_64");
    for contender in ROUND_TRIP {
        group.bench_function(BenchmarkId::from_parameter(contender), |bencher| {
            let mut session = session(contender, Job::Echo(64));
            bencher.iter_custom(|messages| session.round_trips(messages, drop).expect("round trips").elapsed);
        });
    }
}

fn main() {
    peer::be_a_peer_if_asked();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1200))
        .sample_size(20)
        .configure_from_args();
    one_way(&mut criterion);
    round_trip(&mut criterion);
    criterion.final_summary();
}
