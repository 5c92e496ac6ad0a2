//! Streams between two stacks of this process: what a user of `TcpStream` expects.

use std::time::Duration;

use smcd::{SmcConfig, SmcListener, SmcStream, Stack, dibs::loopback::DmbLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn config() -> SmcConfig {
    SmcConfig::new().stack(Stack::with_loopback(DmbLimits::default()).unwrap())
}

async fn pair() -> (SmcStream, SmcStream) {
    let listener = SmcListener::bind_with("127.0.0.1:0", config()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let client = SmcStream::connect_with(addr, &config()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

#[tokio::test]
async fn bytes_go_both_ways_by_smcd() {
    let (mut client, mut server) = pair().await;
    assert!(client.transport().is_smcd(), "{}", client.transport());
    assert!(server.transport().is_smcd(), "{}", server.transport());
    client.write_all(b"hello").await.unwrap();
    let mut buf = [0; 5];
    server.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"hello");
    server.write_all(b"world").await.unwrap();
    client.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"world");
    assert_eq!(client.byte_counts().sent, 5);
}

#[tokio::test]
async fn half_close_then_close() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"request").await.unwrap();
    client.shutdown().await.unwrap();
    let mut request = String::new();
    server.read_to_string(&mut request).await.unwrap();
    assert_eq!(request, "request");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, "answer");
}
