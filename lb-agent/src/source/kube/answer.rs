//! Reads answers of the API server up to a limit: an endless answer costs neither memory nor the state reported so far.

use std::error::Error;
use std::future::ready;
use std::io;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http::HeaderValue;
use http::header::ACCEPT_ENCODING;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

use super::failure::{ANSWER_MAX, Failure};

/// Bytes of a refusal that are read.
const REFUSAL_MAX: usize = 64 << 10;

pub type Request = http::Request<Vec<u8>>;

/// The whole answer to a list request.
pub async fn whole(client: &Client, request: Request) -> Result<Vec<u8>, Failure> {
    let (bytes, is_whole) = read(begun(client, request).await?, ANSWER_MAX).await?;
    if is_whole { Ok(bytes) } else { Err(Failure::TooLong("the answer to a list")) }
}

/// The lines of an answer to a watch request, as they arrive. They end with the connection.
pub async fn lines(
    client: &Client,
    mut request: Request,
) -> Result<impl Stream<Item = Result<String, Failure>> + use<>, Failure> {
    // Servers compress each event on its own, and we have no decoder for that.
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let bytes = begun(client, request).await?.into_data_stream().map_err(|error| {
        let kind = if is_cut(&error) { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::Other };
        io::Error::new(kind, error)
    });
    let lines = FramedRead::new(StreamReader::new(bytes), LinesCodec::new_with_max_length(ANSWER_MAX));
    Ok(lines.filter_map(|line| {
        ready(match line {
            Ok(line) => Some(Ok(line)),
            // Proxies may cut connections that last for minutes. The watch is resumed at its position.
            Err(LinesCodecError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(LinesCodecError::Io(error)) => Some(Err(Failure::of_error(&error))),
            Err(LinesCodecError::MaxLineLengthExceeded) => Some(Err(Failure::TooLong("an event of a watch"))),
        })
    }))
}

/// The body of a successful answer.
async fn begun(client: &Client, request: Request) -> Result<Body, Failure> {
    let answer = client.send(request.map(Body::from)).await?;
    let code = answer.status();
    if !code.is_client_error() && !code.is_server_error() {
        return Ok(answer.into_body());
    }
    let (text, _) = read(answer.into_body(), REFUSAL_MAX).await?;
    let mut status = serde_json::from_slice(&text)
        .unwrap_or_else(|_| Status::failure(&String::from_utf8_lossy(&text), "without a Status"));
    if status.code == 0 {
        status.code = code.as_u16();
    }
    Err(Failure::of_status(&status))
}

/// The body, cut at this length. Also returns whether it is complete.
async fn read(mut body: Body, bytes_max: usize) -> Result<(Vec<u8>, bool), Failure> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = bytes_max - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok((bytes, false));
        }
    }
    Ok((bytes, true))
}

/// Whether the connection ended in the middle of the answer.
fn is_cut(error: &kube::Error) -> bool {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = error.source();
    }
    false
}
