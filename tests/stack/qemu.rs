//! The links to QEMU, with an endpoint in place of the virtual machine.

use std::{future::poll_fn, io::ErrorKind};

use smcd::tcp_fallback::stack::{Endpoint, Link, QemuDgram, QemuStream, SynOption, syn::Syn};
use smoltcp::{
    phy::{Device, Medium, TxToken},
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixDatagram, UnixStream},
};

use crate::{
    harness::{Net, exchange, host, is_smcd, simulated, v4},
    settings::config,
};

fn stream_pair() -> Net {
    let (one, two) = UnixStream::pair().unwrap();
    Net {
        client: Endpoint::new(QemuStream::new(one), &host(1)).unwrap(),
        server: Endpoint::new(QemuStream::new(two), &host(2)).unwrap(),
    }
}

#[test]
fn stream_backend_carries_whole_connections() {
    simulated(async {
        let net = stream_pair();
        is_smcd(net.connect(&config(), &config()).await).await;
        let listener = net.listen();
        let (client, server) = tokio::join!(net.client.connect(v4(2), SynOption::Omit), listener.accept());
        exchange(client.unwrap(), server.unwrap(), 2_000_000).await;
    });
}

#[test]
fn dgram_backend_carries_whole_connections() {
    simulated(async {
        let (one, two) = UnixDatagram::pair().unwrap();
        let net = Net {
            client: Endpoint::new(QemuDgram::new(one), &host(1)).unwrap(),
            server: Endpoint::new(QemuDgram::new(two), &host(2)).unwrap(),
        };
        is_smcd(net.connect(&config(), &config()).await).await;
        let listener = net.listen();
        let (client, server) = tokio::join!(net.client.connect(v4(2), SynOption::Omit), listener.accept());
        exchange(client.unwrap(), server.unwrap(), 500_000).await;
    });
}

/// Linux queues no more than ten datagrams, unless told otherwise.
#[test]
fn dgram_backend_keeps_what_the_socket_does_not_take() {
    const FRAMES: u8 = 100;
    simulated(async {
        let (one, qemu) = UnixDatagram::pair().unwrap();
        let mut link = QemuDgram::new(one);
        for number in 0..FRAMES {
            let token = link.transmit(Instant::ZERO).unwrap();
            token.consume(60, |frame| frame.fill(number));
        }
        let read_all = async {
            for number in 0..FRAMES {
                let mut frame = [0; 100];
                assert_eq!(qemu.recv(&mut frame).await.unwrap(), 60);
                assert_eq!(frame[0], number);
            }
        };
        tokio::select! {
            () = read_all => {}
            arrived = poll_fn(|cx| link.poll_arrival(cx)) => panic!("nothing was sent: {arrived:?}"),
        }
    });
}

#[test]
fn dgram_backend_finds_its_sockets_by_path() {
    simulated(async {
        let dir = std::env::temp_dir().join(format!("smcd-qemu-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (ours, theirs) = (dir.join("ours"), dir.join("qemu"));
        let qemu = UnixDatagram::bind(&theirs).unwrap();
        let link = QemuDgram::connect(&ours, &theirs).unwrap();
        qemu.connect(&ours).unwrap();
        let endpoint = Endpoint::new(link, &host(1)).unwrap();
        let mut frame = [0; 2000];
        let asked = async {
            let n = qemu.recv(&mut frame).await.unwrap();
            frame[..n].to_vec()
        };
        tokio::select! {
            frame = asked => assert_eq!(frame[12..14], [8, 6], "the first frame asks by ARP"),
            _ = endpoint.connect(v4(2), SynOption::Offer) => panic!("nobody is there"),
        }
        std::fs::remove_dir_all(&dir).unwrap();
    });
}

/// On the wire each frame follows its length in four bytes, the highest first.
#[test]
fn stream_backend_frames_as_qemu_does() {
    simulated(async {
        let (one, mut qemu) = UnixStream::pair().unwrap();
        let endpoint = Endpoint::new(QemuStream::new(one), &host(1)).unwrap();
        let connect = endpoint.connect(v4(2), SynOption::Offer);
        let wire = async {
            let asked = frame_of(&mut qemu).await;
            assert_eq!(asked[12..14], [8, 6], "the first frame asks by ARP");
            answer_arp(&mut qemu, &asked).await;
            loop {
                let frame = frame_of(&mut qemu).await;
                if let Some(syn) = Syn::read(&frame, Medium::Ethernet) {
                    break syn;
                }
            }
        };
        tokio::select! {
            syn = wire => assert!(syn.has_option && syn.destination == v4(2)),
            _ = connect => panic!("nobody is there"),
        }
    });
}

async fn frame_of(qemu: &mut UnixStream) -> Vec<u8> {
    let len = qemu.read_u32().await.unwrap();
    let mut frame = vec![0; len as usize];
    qemu.read_exact(&mut frame).await.unwrap();
    frame
}

/// Says that 10.0.0.2 is at 02:00:00:00:00:02.
async fn answer_arp(qemu: &mut UnixStream, asked: &[u8]) {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
    let asker = &asked[22..32];
    let mut answer = [&asked[6..12], &MAC, &asked[12..20], &[0, 2]].concat();
    answer.extend([&MAC[..], &asked[38..42], asker].concat());
    qemu.write_u32(answer.len() as u32).await.unwrap();
    // In pieces, as a stream may bring them.
    for piece in answer.chunks(5) {
        qemu.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
}

#[test]
fn virtual_machine_that_goes_ends_all_connections() {
    simulated(async {
        let (one, qemu) = UnixStream::pair().unwrap();
        let endpoint = Endpoint::new(QemuStream::new(one), &host(1)).unwrap();
        let listener = endpoint.listen(v4(1), 1, SynOption::Offer).unwrap();
        drop(qemu);
        // Whether reading or writing finds it out first.
        let kinds = [ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe];
        let error = endpoint.connect(v4(2), SynOption::Offer).await.unwrap_err();
        assert!(kinds.contains(&error.kind()), "{error:?}");
        let error = listener.accept().await.unwrap_err();
        assert!(kinds.contains(&error.kind()), "{error:?}");
    });
}

#[test]
fn stream_out_of_step_ends_all_connections() {
    simulated(async {
        let (one, mut qemu) = UnixStream::pair().unwrap();
        let endpoint = Endpoint::new(QemuStream::new(one), &host(1)).unwrap();
        qemu.write_all(&[0xff; 8]).await.unwrap();
        let error = endpoint.connect(v4(2), SynOption::Offer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    });
}
