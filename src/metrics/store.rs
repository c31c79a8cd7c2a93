//! Store: what the store has done, and what waits for its disk.

use super::{Exposition, Kind};
use crate::store::Stats;

/// Writes what the store counts, and what waits.
pub fn write_store_stats(stats: &Stats, out: &mut Exposition) {
    for (name, help, waiting) in [
        ("weir_store_queued", "Writes that are not answered yet.", stats.queued),
        (
            "weir_store_sync_waiting",
            "Writes that are in the database's log and wait until the disk has them.",
            stats.sync_waiting,
        ),
        ("weir_store_unsettled", "Ends of answers that could not be written, and are tried again.", stats.unsettled),
    ] {
        out.metric(name, Kind::Gauge, help).sample(&[], waiting);
    }
    let help = "Checkpoints of answers that were dropped because there was too much to write.";
    let mut metric = out.metric("weir_store_checkpoints_dropped_total", Kind::Counter, help);
    metric.sample(&[], stats.checkpoints_dropped);
    for (name, help, count) in [
        ("weir_store_writes_total", "Writes that were applied.", stats.jobs),
        ("weir_store_transactions_total", "Transactions that were committed, of one or more writes.", stats.groups),
        ("weir_store_transactions_failed_total", "Transactions that failed as a whole.", stats.groups_failed),
        ("weir_store_fsyncs_total", "Times that the disk was waited for.", stats.fsyncs),
    ] {
        out.metric(name, Kind::Counter, help).sample(&[], count);
    }
    let help = "Questions to the store, by whose thread answered them: one of its readers', or the caller's own.";
    let mut metric = out.metric("weir_store_reads_total", Kind::Counter, help);
    metric.sample(&[("by", "reader")], stats.reads);
    metric.sample(&[("by", "caller")], stats.reads_near);
}
