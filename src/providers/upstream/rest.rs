//! Rest: the body of an answer over HTTP/1.1 that has no length and lasts until its connection ends (RFC 9112, section
//! 6.3, rule 8), as small servers and proxies send it.

use std::io::ErrorKind;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use tokio::io::AsyncReadExt;

use super::connections::Hold;
use super::{Body, TransportError};

/// How much one read may bring.
const READ_BYTES_MAX: usize = 16 * 1024;

/// Takes the connection that `hold` holds and reads it to its end; `beginning` is what has come with the head. Whether
/// the answer was whole by then its decoder says. Dropping the body closes the connection.
pub(super) fn body(beginning: Bytes, hold: Hold) -> Body {
    let connection = hold.connection().take();
    let beginning = stream::iter((!beginning.is_empty()).then_some(Ok(beginning)));
    let rest = stream::try_unfold((connection, hold), |(mut connection, hold)| async move {
        let Some(stream) = &mut connection else { return Err(TransportError::Lost) };
        let mut bytes = BytesMut::with_capacity(READ_BYTES_MAX);
        match stream.read_buf(&mut bytes).await {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some((bytes.freeze(), (connection, hold)))),
            // Many servers end an encrypted connection without the goodbye of TLS.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(_) => Err(TransportError::Lost),
        }
    });
    beginning.chain(rest).boxed_local()
}
