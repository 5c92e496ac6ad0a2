//! Buffers that go back to their link group, after many connections and every way to end one.

mod common;

use common::{config, descriptors, in_time, mappings, promote, promoting};
use smcd::{Handshake, Promotion, SmcConfig, SmcListener, SmcStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How the connections become SMC-D.
type Settings = fn() -> SmcConfig;

async fn connect(listener: &SmcListener, client_config: &SmcConfig) -> (SmcStream, SmcStream) {
    let addr = listener.local_addr().unwrap();
    let (client, server) =
        in_time(async { tokio::join!(SmcStream::connect_with(addr, client_config), listener.accept()) })
            .await;
    let (mut client, mut server) = (client.unwrap(), server.unwrap().0);
    if client_config.handshake == Handshake::Promotion {
        promote(&mut client, &mut server).await;
    }
    assert!(client.transport().is_smcd(), "{}", client.transport());
    (client, server)
}

/// Opens `number` connections at once, closes them, and opens a hundred more, which must work.
async fn many_at_once_then_more(config: Settings, number: usize, server_first: bool) {
    let client_config = config().receive_buffer(16384);
    let listener = SmcListener::bind_with("127.0.0.1:0", config().receive_buffer(16384)).await.unwrap();
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..number {
        let (client, server) = connect(&listener, &client_config).await;
        clients.push(client);
        servers.push(server);
    }
    if server_first {
        servers.clear();
        clients.clear();
    } else {
        clients.clear();
        servers.clear();
    }
    let mut kept = Vec::new();
    for _ in 0..100 {
        let (mut client, mut server) = connect(&listener, &client_config).await;
        let mut buf = [0; 2];
        client.write_all(b"hi").await.unwrap();
        in_time(server.read_exact(&mut buf)).await.unwrap();
        server.write_all(b"ho").await.unwrap();
        in_time(client.read_exact(&mut buf)).await.unwrap();
        kept.push((client, server));
    }
}

async fn more_connections_than_a_group_keeps_buffers_for(config: Settings) {
    for number in [100, 400] {
        many_at_once_then_more(config, number, true).await;
        many_at_once_then_more(config, number, false).await;
    }
}

async fn a_second_connection_needs_no_new_memory(config: Settings) {
    let client_config = config();
    let listener = SmcListener::bind_with("127.0.0.1:0", config()).await.unwrap();
    let mut used = Vec::new();
    for _ in 0..5 {
        let (mut client, mut server) = connect(&listener, &client_config).await;
        used.push((mappings(), descriptors()));
        client.shutdown().await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(in_time(server.read(&mut [0])).await.unwrap(), 0);
        assert_eq!(in_time(client.read(&mut [0])).await.unwrap(), 0);
    }
    assert!(used.windows(2).all(|pair| pair[0] == pair[1]), "{used:?}");
}

/// An everyday pattern: request, half-close, answer, half-close; and the client goes without having read it all.
async fn an_answer_left_unread_keeps_no_buffers(config: Settings) {
    let client_config = config();
    let listener = SmcListener::bind_with("127.0.0.1:0", config()).await.unwrap();
    for _ in 0..300 {
        let (mut client, mut server) = connect(&listener, &client_config).await;
        client.shutdown().await.unwrap();
        assert_eq!(in_time(server.read(&mut [0])).await.unwrap(), 0);
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        drop(client);
        drop(server);
    }
    assert!(mappings() < 40, "{} mappings after connections one at a time", mappings());
    let (_client, _server) = connect(&listener, &client_config).await;
}

/// One after the other: both count what the process holds.
#[tokio::test]
async fn buffers_are_kept_and_let_go_in_order() {
    let by_promotion: Settings = || promoting(Promotion::Eager);
    for settings in [config, by_promotion] {
        a_second_connection_needs_no_new_memory(settings).await;
        an_answer_left_unread_keeps_no_buffers(settings).await;
        more_connections_than_a_group_keeps_buffers_for(settings).await;
    }
}
