//! Checks every operation between the ranks of a job, and measures the exchange of a gradient:
//! `mpirun -np 3 target/release/examples/collectives`. Rank 0 prints; a wrong result ends the job.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::time::{Duration, Instant};

use cloze_comm::{Communicator, Launch, ReduceBuffers, Tree, part, threads_of_rank};

fn main() {
    let launch = Launch::detect().expect("a job of several ranks: start this program with mpirun");
    let ranks =
        Communicator::start(launch, Duration::from_secs(60), |line| eprintln!("{line}")).expect("an MPI library");
    let (rank, size) = (ranks.rank(), ranks.size());
    let threads = threads_of_rank(&ranks);
    if ranks.is_root() {
        println!("{} ranks of {}, {threads} threads each; {}", size, launch.launcher, ranks.describe());
    }

    let all = ranks.all_gather(&vec![rank as u8; rank]);
    assert!(all.iter().enumerate().all(|(r, bytes)| *bytes == vec![r as u8; r]), "all_gather");
    assert_eq!(ranks.all_gather_numbers(&[rank as u64, 7]), (0..size as u64).flat_map(|r| [r, 7]).collect::<Vec<_>>());
    let root = if rank == 0 { b"of rank 0".to_vec() } else { Vec::new() };
    assert_eq!(ranks.broadcast(root), b"of rank 0");
    let mut entries: Vec<f64> = (0..10).map(|i| if i % size == rank { i as f64 } else { f64::NAN }).collect();
    ranks.all_gather_entries(&mut entries, |i| i % size);
    assert!(entries.iter().enumerate().all(|(i, entry)| *entry == i as f64), "all_gather_entries");
    ranks.barrier();
    // Empty parts, and windows that end within a part.
    for window in [3, 1 << 20] {
        let mut found = Vec::new();
        let gathered = ranks.gather_bytes(&vec![rank as u8; 5 * rank], window, |_, bytes| {
            found.push(bytes.to_vec());
            Ok::<(), ()>(())
        });
        let expected = if rank == 0 { (0..size).map(|r| vec![r as u8; 5 * r]).collect() } else { Vec::new() };
        assert!(gathered.is_ok() && found == expected, "gather_bytes");
    }
    let other = ranks.first_difference(u64::from(rank + 1 == size)).map(|(rank, _)| rank);
    assert_eq!((ranks.first_difference(7), other), (None, Some(size - 1)));
    let worked = ranks.at_root(|| {
        std::thread::sleep(Duration::from_millis(2500));
        Ok::<_, ()>(rank)
    });
    assert_eq!(worked, Ok((rank == 0).then_some(0)), "at_root");

    // Numbers whose sum depends on the order; more and fewer parts than ranks.
    let number = |part: usize, i: usize| ((part * 131 + i * 17) as f32).sin() * 10f32.powi(part as i32 % 7);
    for parts in [1, size, 2 * size + 1, 8] {
        let length = 1000;
        let mut expected: Vec<Vec<f32>> = (0..parts).map(|p| (0..length).map(|i| number(p, i)).collect()).collect();
        let leaves: Vec<_> = (0..parts).map(|p| p..p + 1).collect();
        Tree::new(parts).combine(&leaves, &mut |a, b| {
            let from = expected[b].clone();
            expected[a].iter_mut().zip(from).for_each(|(x, y)| *x += y);
        });
        let sums = Tree::new(parts).sums_of(part(parts, rank, size));
        let of_sum = |range: &std::ops::Range<usize>| -> Vec<f32> {
            let mut own: Vec<Vec<f32>> = range.clone().map(|p| (0..length).map(|i| number(p, i)).collect()).collect();
            let leaves: Vec<_> = (0..own.len()).map(|p| p..p + 1).collect();
            Tree::new(own.len()).combine(&leaves, &mut |a, b| {
                let from = own[b].clone();
                own[a].iter_mut().zip(from).for_each(|(x, y)| *x += y);
            });
            own.swap_remove(0)
        };
        let own: Vec<Vec<f32>> = sums.iter().map(of_sum).collect();
        let slices: Vec<_> = (0..size).map(|r| part(length, r, size)).collect();
        let send: Vec<f32> =
            slices.iter().flat_map(|slice| own.iter().flat_map(|sum| sum[slice.clone()].to_vec())).collect();
        let counts: Vec<usize> = slices.iter().map(std::ops::Range::len).collect();
        let mut found = vec![0.0; counts[rank]];
        ranks.reduce_scatter(parts, &send, &counts, &mut ReduceBuffers::default(), &mut found);
        assert!(found == expected[0][slices[rank].clone()], "reduce_scatter of {parts} parts");
        let mut total: Vec<f32> = (0..length).map(|i| number(rank, i)).collect();
        ranks.all_reduce(&mut total);
        let first = total[0];
        assert!(ranks.all_gather_numbers(&[first]).iter().all(|other| *other == first), "all_reduce");
    }

    let length = 1 << 22;
    let send = vec![1f32; length];
    let counts: Vec<usize> = (0..size).map(|r| part(length, r, size).len()).collect();
    let mut all = vec![0f32; length];
    let mut buffers = ReduceBuffers::default();
    for round in 0..5 {
        let start = Instant::now();
        let own = part(length, rank, size);
        ranks.reduce_scatter(size, &send, &counts, &mut buffers, &mut all[own]);
        ranks.all_gather_parts(&mut all, &counts);
        assert!(all.iter().all(|x| *x == size as f32));
        if ranks.is_root() && round == 4 {
            println!("16 MiB summed and gathered in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
        }
    }
    if ranks.is_root() {
        println!("all operations are correct");
    }
    ranks.finish();
}
