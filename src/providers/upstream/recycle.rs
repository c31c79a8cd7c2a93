//! Recycle: what is left of a body when its answer has ended.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::time::timeout;

use super::{Body, TransportError};

/// How long a body may take to end after its answer has.
const TIME_MAX: Duration = Duration::from_millis(250);
/// How much may follow an answer in its body.
const BYTES_MAX: usize = 64 * 1024;

/// Reads the rest of a body, so that its connection is left as it should be.
///
/// What is left has mostly come with the terminator, and no task is needed. Else there is one for 250 ms at most: as
/// each is the end of a call, there are never more than the pacer lets calls begin within that time, and run.
pub(super) fn recycle(body: Body) {
    let mut rest = Box::pin(drain(body, BYTES_MAX));
    if (&mut rest).now_or_never().is_none() {
        actix_rt::spawn(timeout(TIME_MAX, rest));
    }
}

/// Reads a body to its end, or until it has brought more than `bytes_max`.
pub(super) async fn drain(mut body: impl Stream<Item = Result<Bytes, TransportError>> + Unpin, bytes_max: usize) {
    let mut bytes = 0;
    while let Some(Ok(chunk)) = body.next().await {
        bytes += chunk.len();
        if bytes > bytes_max {
            return;
        }
    }
}
