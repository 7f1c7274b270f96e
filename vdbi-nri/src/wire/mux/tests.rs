use proptest::prelude::*;
use tokio::io::{AsyncReadExt, duplex};
use tokio_util::bytes::{BufMut, Bytes};

use super::*;
use crate::wire::ttrpc::Kind;

fn frame(connection: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u32(connection);
    bytes.put_u32(u32::try_from(payload.len()).unwrap());
    bytes.put_slice(payload);
    bytes
}

fn frames(pieces: &[&[u8]]) -> Vec<Frame> {
    let mut bytes = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        bytes.extend_from_slice(piece);
        while let Some(frame) = Frames.decode(&mut bytes).unwrap() {
            frames.push(frame);
        }
    }
    frames
}

fn response(stream: u32, payload: impl Into<Bytes>) -> Message {
    Message { stream, kind: Kind::Response, payload: payload.into() }
}

/// What a writer makes of messages, as the frames' connections and payloads.
async fn written(messages: Vec<Message>) -> Vec<Frame> {
    let finish = CancellationToken::new();
    let (near, mut far) = duplex(100);
    let (writer, write) = writer(near, finish.clone());
    let send = async {
        for message in messages {
            writer.send(PLUGIN, message).await.unwrap();
        }
        finish.cancel();
    };
    let mut bytes = Vec::new();
    let (wrote, (), _) = tokio::join!(write, send, far.read_to_end(&mut bytes));
    wrote.unwrap();
    frames(&[&bytes])
}

proptest! {
    #[test]
    fn a_byte_stream_is_taken_apart_alike_however_it_arrives(
        sent in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes: Vec<u8> = sent.iter().flat_map(|(connection, payload)| frame(*connection, payload)).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();

        let received: Vec<(u32, Vec<u8>)> =
            frames(&pieces).into_iter().map(|frame| (frame.connection, frame.payload.to_vec())).collect();
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn whatever_arrives_is_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = BytesMut::from(bytes.as_slice());
        while let Ok(Some(_)) = Frames.decode(&mut bytes) {}
        let _ = Frames.decode_eof(&mut bytes);
    }
}

#[test]
fn a_frame_larger_than_a_message_is_refused_before_it_has_come() {
    let mut bytes = BytesMut::new();
    bytes.put_u32(PLUGIN);
    bytes.put_u32(u32::try_from(MAX_PAYLOAD).unwrap());
    assert!(Frames.decode(&mut bytes).unwrap().is_none());

    let mut bytes = BytesMut::new();
    bytes.put_u32(PLUGIN);
    bytes.put_u32(u32::try_from(MAX_PAYLOAD + 1).unwrap());
    let error = Frames.decode(&mut bytes).unwrap_err();
    assert!(matches!(error, MuxError::TooLarge(length) if length == MAX_PAYLOAD + 1), "{error}");
}

#[test]
fn half_a_frame_at_the_end_is_dropped() {
    let mut bytes = BytesMut::from(&frame(PLUGIN, b"whole and half")[..12]);
    assert!(Frames.decode_eof(&mut bytes).unwrap().is_none());
}

#[tokio::test]
async fn a_message_is_exactly_two_frames_whatever_its_length() {
    for length in [1, 4086, 4087, 65_536, 3_000_000, crate::wire::ttrpc::MAX_SENT] {
        let payload = vec![7; length];
        let frames = written(vec![response(9, payload.clone())]).await;
        let [header, body] = frames.as_slice() else { panic!("{length} bytes are {} frames", frames.len()) };
        assert_eq!((header.connection, body.connection), (PLUGIN, PLUGIN));
        let expected = [&u32::try_from(length).unwrap().to_be_bytes()[..], &[0, 0, 0, 9, 2, 0]].concat();
        assert_eq!(header.payload, expected);
        assert!(body.payload == payload, "{length} bytes were changed");
    }
}

#[tokio::test]
async fn a_message_without_payload_is_one_frame() {
    let frames = written(vec![response(3, Bytes::new())]).await;
    let [header] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!(header.payload, [0, 0, 0, 0, 0, 0, 0, 3, 2, 0].as_slice());
}

#[tokio::test]
async fn what_was_handed_over_before_the_end_is_written() {
    let messages = (0..50).map(|stream| response(stream, vec![0; 200])).collect();
    let frames = written(messages).await;
    let streams: Vec<u8> = frames.iter().step_by(2).map(|header| header.payload[7]).collect();
    assert_eq!(streams, (0..50).collect::<Vec<u8>>());
}

#[tokio::test]
async fn frames_of_two_messages_never_interleave() {
    let finish = CancellationToken::new();
    let (near, mut far) = duplex(100);
    let (writer, write) = writer(near, finish.clone());
    let send = |connection, byte: u8| {
        let writer = writer.clone();
        async move {
            for stream in 0..100 {
                writer.send(connection, response(stream, vec![byte; 300])).await.unwrap();
            }
        }
    };
    let senders = async {
        tokio::join!(send(PLUGIN, 1), send(RUNTIME, 2));
        finish.cancel();
    };
    let mut bytes = Vec::new();
    let (wrote, (), _) = tokio::join!(write, senders, far.read_to_end(&mut bytes));
    wrote.unwrap();
    let frames = frames(&[&bytes]);
    assert_eq!(frames.len(), 400);
    for pair in frames.chunks(2) {
        assert_eq!(pair[0].payload.len(), HEADER);
        assert_eq!(pair[0].connection, pair[1].connection);
        let byte = u8::try_from(pair[1].connection).unwrap();
        assert_eq!(pair[1].payload, vec![byte; 300]);
    }
}

#[tokio::test]
async fn nothing_is_taken_after_the_end() {
    let finish = CancellationToken::new();
    let (near, _far) = duplex(100);
    let (writer, write) = writer(near, finish.clone());
    finish.cancel();
    write.await.unwrap();
    writer.send(PLUGIN, response(1, vec![1])).await.unwrap_err();
}
