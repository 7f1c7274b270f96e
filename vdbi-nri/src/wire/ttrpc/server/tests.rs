//! Over a whole link, as a client sees it.

use std::sync::Mutex;

use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex, split},
    sync::Semaphore,
    time::sleep,
};

use super::*;
use crate::wire::{
    link::{Link, Role},
    mux,
    ttrpc::{Client, MAX_RECEIVED},
};

const SECOND: Duration = Duration::from_secs(1);

/// Does what the method's name says.
#[derive(Debug)]
struct Example {
    proceed: Semaphore,
    answered: Mutex<Vec<(String, bool)>>,
}

impl Example {
    fn new() -> Arc<Self> {
        Arc::new(Self { proceed: Semaphore::new(0), answered: Mutex::default() })
    }
}

impl Service for Example {
    async fn call(&self, call: Call) -> Result<Vec<u8>, Failure> {
        match call.method.as_str() {
            "echo" => Ok(call.payload.to_vec()),
            "timeout" => Ok(u64::try_from(call.timeout.as_millis()).unwrap().to_be_bytes().to_vec()),
            "panic" => panic!("as asked"),
            "long" => Ok(vec![0; MAX_SENT]),
            "block" => {
                std::thread::sleep(SECOND);
                Ok(Vec::new())
            }
            "wait" => {
                self.proceed.acquire().await.unwrap().forget();
                Ok(b"waited".to_vec())
            }
            _ => std::future::pending().await,
        }
    }

    fn answered(&self, answered: Answered<'_>) {
        let entry = (answered.method.to_owned(), answered.failure.is_some());
        self.answered.lock().unwrap().push(entry);
    }
}

/// Keeps a link going, until its end.
fn turning(mut link: Link<DuplexStream, Example>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { while link.turn().await.is_ok() {} });
    tasks
}

/// A client of an [`Example`].
fn client() -> (Client, JoinSet<()>, JoinSet<()>) {
    let (near, far) = duplex(1 << 16);
    let runtime = Link::new(near, Role::Runtime, Example::new(), SECOND);
    let client = runtime.client();
    (client, turning(runtime), turning(Link::new(far, Role::Plugin, Example::new(), SECOND)))
}

async fn call(client: &Client, method: &str) -> Result<Bytes, Failure> {
    client.call("example", method, b"hello".to_vec(), SECOND).await
}

#[tokio::test]
async fn a_panic_is_answered_with_an_error_and_the_next_request_is_served() {
    let (client, _near, _far) = client();
    assert_eq!(call(&client, "panic").await.unwrap_err().code, Code::Internal as i32);
    assert_eq!(call(&client, "echo").await.unwrap(), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_is_answered_for_before_the_caller_gives_up() {
    let (client, _near, _far) = client();
    let start = Instant::now();
    let failure = call(&client, "never").await.unwrap_err();
    assert_eq!(failure, Failure::new(Code::DeadlineExceeded, "the plugin had no answer in time"));
    let took = start.elapsed();
    assert!((850..900).contains(&took.as_millis()), "{took:?}");
    assert_eq!(call(&client, "echo").await.unwrap(), "hello");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_is_answered_for() {
    let (client, _near, _far) = client();
    let failure = call(&client, "block").await.unwrap_err();
    assert_eq!(failure.message, "the plugin had no answer in time");
}

#[tokio::test]
async fn an_answer_that_nri_does_not_carry_is_an_error() {
    let (client, _near, _far) = client();
    let failure = call(&client, "long").await.unwrap_err();
    assert_eq!(failure.code, Code::ResourceExhausted as i32);
    assert_eq!(call(&client, "echo").await.unwrap(), "hello");
}

#[tokio::test]
async fn requests_are_answered_as_they_finish() {
    let (near, far) = duplex(1 << 16);
    let runtime = Link::new(near, Role::Runtime, Example::new(), SECOND);
    let example = Example::new();
    let client = runtime.client();
    let (_near, _far) = (turning(runtime), turning(Link::new(far, Role::Plugin, example.clone(), SECOND)));
    let waiting = call(&client, "wait");
    let overtaking = async {
        assert_eq!(call(&client, "echo").await.unwrap(), "hello");
        example.proceed.add_permits(1);
    };
    let (waited, ()) = tokio::join!(waiting, overtaking);
    assert_eq!(waited.unwrap(), "waited");
}

#[tokio::test]
async fn a_caller_that_does_not_say_how_long_it_waits_waits_as_configured() {
    let (writer, mut written) = raw_writer();
    let mut server = Server::new(mux::PLUGIN, writer, Example::new(), SECOND);
    let request = Request { method: "timeout".to_owned(), ..Request::default() };
    server.take(1, request.encode_to_vec().into());
    let answer = written.answer().await;
    assert_eq!(answer.payload, 1000_u64.to_be_bytes().as_slice());
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_an_error() {
    let (writer, mut written) = raw_writer();
    let mut server = Server::new(mux::PLUGIN, writer, Example::new(), SECOND);
    server.take(1, Bytes::from_static(b"\xff\xff\xff"));
    assert_eq!(written.answer().await.status.unwrap().code, Code::InvalidArgument as i32);
}

#[tokio::test]
async fn a_request_over_64_mib_is_answered_with_an_error_and_the_next_is_served() {
    let (near, far) = duplex(1 << 20);
    let example = Example::new();
    let _far = turning(Link::new(far, Role::Plugin, example.clone(), SECOND));
    let (reader, mut stream) = split(near);
    let length = MAX_RECEIVED + 1;
    let mut header = u32::try_from(length).unwrap().to_be_bytes().to_vec();
    header.extend([0, 0, 0, 1, 1, 0]);
    let write = async {
        frame(&mut stream, &header).await;
        let piece = vec![0; 4 << 20];
        for _ in 0..16 {
            frame(&mut stream, &piece).await;
        }
        frame(&mut stream, &[0]).await;
        let echo = Request {
            method: "echo".to_owned(),
            payload: Bytes::from_static(b"hello"),
            ..Request::default()
        };
        let message = Message { stream: 3, kind: Kind::Request, payload: echo.encode_to_vec().into() };
        frame(&mut stream, &message.header()).await;
        frame(&mut stream, &message.payload).await;
    };
    let mut written = Written::over(reader);
    let read = async { (written.answer().await, written.answer().await) };
    let ((), (first, second)) = tokio::join!(write, read);
    assert_eq!(first.status.unwrap().code, Code::ResourceExhausted as i32);
    assert_eq!(second.payload, "hello");
    assert_eq!(*example.answered.lock().unwrap(), [(String::new(), true), ("echo".to_owned(), false)]);
}

#[tokio::test]
async fn a_request_of_20_mb_is_served() {
    let (near, far) = duplex(1 << 20);
    let _far = turning(Link::new(far, Role::Plugin, Example::new(), 60 * SECOND));
    let (reader, mut stream) = split(near);
    let payload = vec![1; 20_000_000].into();
    let request = Request { method: "timeout".to_owned(), payload, ..Request::default() };
    let message = Message { stream: 1, kind: Kind::Request, payload: request.encode_to_vec().into() };
    let write = async {
        frame(&mut stream, &message.header()).await;
        for piece in message.payload.chunks(4 << 20) {
            frame(&mut stream, piece).await;
        }
    };
    let mut written = Written::over(reader);
    let ((), answer) = tokio::join!(write, written.answer());
    assert_eq!(answer.payload, 60_000_u64.to_be_bytes().as_slice());
}

#[tokio::test]
async fn connections_that_are_none_of_ours_are_ignored() {
    let (near, far) = duplex(1 << 16);
    let _far = turning(Link::new(far, Role::Plugin, Example::new(), SECOND));
    let (reader, mut stream) = split(near);
    for connection in [0, 3, u32::MAX] {
        stream.write_all(&connection.to_be_bytes()).await.unwrap();
        stream.write_all(&[0, 0, 0, 3, 1, 2, 3]).await.unwrap();
    }
    let echo =
        Request { method: "echo".to_owned(), payload: Bytes::from_static(b"hello"), ..Request::default() };
    let message = Message { stream: 3, kind: Kind::Request, payload: echo.encode_to_vec().into() };
    frame(&mut stream, &message.header()).await;
    frame(&mut stream, &message.payload).await;
    assert_eq!(Written::over(reader).answer().await.payload, "hello");
}

#[tokio::test(start_paused = true)]
async fn at_the_end_requests_under_way_are_finished_and_new_ones_refused() {
    let (near, far) = duplex(1 << 16);
    let runtime = Link::new(near, Role::Runtime, Example::new(), SECOND);
    let example = Example::new();
    let client = runtime.client();
    let _near = turning(runtime);
    let mut plugin = Link::new(far, Role::Plugin, example.clone(), SECOND);
    let plugin = async {
        // Until the first request waits.
        let _ =
            tokio::time::timeout(Duration::from_millis(10), async { while plugin.turn().await.is_ok() {} })
                .await;
        plugin.finish().await.unwrap();
    };
    let waiting = call(&client, "wait");
    let late = async {
        sleep(Duration::from_millis(20)).await;
        let failure = call(&client, "echo").await.unwrap_err();
        assert_eq!(failure.message, "the plugin is shutting down");
        example.proceed.add_permits(1);
    };
    let (waited, (), ()) = tokio::join!(waiting, late, plugin);
    assert_eq!(waited.unwrap(), "waited");
    let failure = call(&client, "echo").await.unwrap_err();
    assert_eq!(failure.code, Code::Unavailable as i32);
}

#[tokio::test]
async fn calls_fail_when_the_other_side_goes_away() {
    let (client, _near, far) = client();
    let gone = async {
        tokio::task::yield_now().await;
        drop(far);
    };
    let (result, ()) = tokio::join!(call(&client, "never"), gone);
    assert_eq!(result.unwrap_err().code, Code::Unavailable as i32);
}

async fn frame(stream: &mut (impl AsyncWriteExt + Unpin), payload: &[u8]) {
    stream.write_all(&mux::PLUGIN.to_be_bytes()).await.unwrap();
    stream.write_all(&u32::try_from(payload.len()).unwrap().to_be_bytes()).await.unwrap();
    stream.write_all(payload).await.unwrap();
}

/// What a server has written.
struct Written<R> {
    frames: tokio_util::codec::FramedRead<R, mux::Frames>,
    _writing: JoinSet<std::io::Result<()>>,
}

impl<R: tokio::io::AsyncRead + Unpin> Written<R> {
    fn over(reader: R) -> Self {
        Self { frames: tokio_util::codec::FramedRead::new(reader, mux::Frames), _writing: JoinSet::new() }
    }

    async fn answer(&mut self) -> Response {
        use futures::StreamExt;
        let _header = self.frames.next().await.unwrap().unwrap();
        Response::decode(self.frames.next().await.unwrap().unwrap().payload.freeze()).unwrap()
    }
}

fn raw_writer() -> (Writer, Written<DuplexStream>) {
    let (near, far) = duplex(1 << 16);
    let (writer, write) = mux::writer(near, tokio_util::sync::CancellationToken::new());
    let mut written = Written::over(far);
    written._writing.spawn(write);
    (writer, written)
}
