//! A connection that does one thing: run a statement in the text protocol and put its cells straight into blocks.
//!
//! The driver makes a vector per cell; here a cell is copied once, from the socket's buffer into its block. The session is the one of
//! [`connect`](crate::connect). It is opened beside a connection of the driver, which has just been let in: so it knows only the short
//! ways in, and whoever opens it goes on with the driver's connection where it fails.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mysql_async::consts::CapabilityFlags;
use mysql_async::{DriverError, Error, IoError, ServerError};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;
use plumbline_sdk::RowBlock;
use plumbline_sdk::read::BlockSink;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{MysqlConfig, SslMode};

type Result<T> = std::result::Result<T, Error>;

/// What one read of the socket may bring.
const BUFFER: usize = 256 * 1024;
/// A packet of this length is continued in the next one.
const FULL: usize = 0xFF_FFFF;
const MAX_PACKET: u32 = 1024 * 1024 * 1024;
const UTF8MB4_GENERAL_CI: u8 = 45;

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Encryption failed.
    Gone,
}

impl Stream {
    async fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into).await,
            Self::Tls(stream) => stream.read(into).await,
            Self::Gone => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Self::Gone => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }
}

/// A session that runs statements. After an error that is not the server's it is not to be used any more.
pub struct Wire {
    stream: Stream,
    /// What was read and not yet taken: `buffer[from..upto]`.
    buffer: Vec<u8>,
    from: usize,
    upto: usize,
    sequence: u8,
    /// An answer was begun and not read to its end: what comes next belongs to it. Stays so where a caller gave up waiting.
    busy: bool,
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A server that is told does not count the session as one that broke off. In the middle of an answer it would not listen.
        let (false, Ok(runtime)) = (self.busy, tokio::runtime::Handle::try_current()) else { return };
        let mut stream = std::mem::replace(&mut self.stream, Stream::Gone);
        runtime.spawn(async move {
            let _ = tokio::time::timeout(Duration::from_secs(1), stream.write(&[1, 0, 0, 0, 1])).await;
        });
    }
}

fn io(cause: std::io::Error) -> Error {
    Error::Io(IoError::Io(cause))
}

fn unexpected() -> Error {
    io(std::io::Error::other("an answer that the protocol does not have here"))
}

impl Wire {
    /// Connects and lets the server know who we are. `statements` prepare the session.
    pub async fn connect(config: &MysqlConfig, statements: &[&str]) -> Result<Self> {
        let stream = TcpStream::connect((config.host.as_str(), config.port)).await.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(30));
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(io)?;
        let mut wire = Self { stream: Stream::Plain(stream), buffer: vec![0; BUFFER], from: 0, upto: 0, sequence: 0, busy: false };
        wire.log_in(config).await?;
        for statement in statements {
            wire.run(statement).await?;
        }
        Ok(wire)
    }

    async fn log_in(&mut self, config: &MysqlConfig) -> Result<()> {
        let greeting = self.packet().await?;
        let greeting = self.checked(greeting)?.to_vec();
        let greeting: HandshakePacket<'_> = ParseBuf(&greeting).parse(()).map_err(io)?;
        let mut nonce = greeting.scramble_1_ref().to_vec();
        nonce.extend_from_slice(greeting.scramble_2_ref().unwrap_or_default());
        nonce.resize(20, 0);
        let offered = greeting.capabilities();
        let mut wanted = CapabilityFlags::CLIENT_PROTOCOL_41
            | CapabilityFlags::CLIENT_SECURE_CONNECTION
            | CapabilityFlags::CLIENT_LONG_PASSWORD
            | CapabilityFlags::CLIENT_LONG_FLAG
            | CapabilityFlags::CLIENT_TRANSACTIONS
            | CapabilityFlags::CLIENT_PLUGIN_AUTH;
        if !offered.contains(wanted) {
            return Err(unexpected());
        }
        let database = Some(config.database.as_bytes()).filter(|database| !database.is_empty());
        if database.is_some() {
            wanted |= CapabilityFlags::CLIENT_CONNECT_WITH_DB;
        }
        if let Some(settings) = tls(config)? {
            if offered.contains(CapabilityFlags::CLIENT_SSL) {
                wanted |= CapabilityFlags::CLIENT_SSL;
                self.send_struct(&SslRequest::new(wanted, MAX_PACKET, UTF8MB4_GENERAL_CI)).await?;
                self.encrypt(config, settings).await?;
            } else if config.ssl_mode != SslMode::Preferred {
                return Err(DriverError::NoClientSslFlagFromServer.into());
            }
        }
        let plugin = match greeting.auth_plugin() {
            Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
            _ => AuthPlugin::MysqlNativePassword,
        };
        let password = Some(config.password.expose()).filter(|password| !password.is_empty());
        let proof = plugin.gen_data(password, &nonce);
        let version = greeting.server_version_parsed().unwrap_or((8, 0, 0));
        let response = HandshakeResponse::new(proof.as_deref(), version, Some(config.user.as_bytes()), database, Some(plugin.borrow()), wanted, None, MAX_PACKET);
        self.send_struct(&response).await?;
        self.prove(password).await
    }

    /// Answers until we are in.
    async fn prove(&mut self, password: Option<&str>) -> Result<()> {
        let mut switched = false;
        loop {
            let packet = self.packet().await?;
            let packet = self.checked(packet)?;
            match packet {
                [0x00, ..] => return Ok(()),
                // The server remembers the password; the last word follows. The way in for one that it does not remember is the driver's.
                [0x01, 0x03] => {}
                [0xFE, ..] if !switched && packet.len() > 1 => {
                    switched = true;
                    let request: AuthSwitchRequest<'_> = ParseBuf(packet).parse(()).map_err(io)?;
                    let plugin = request.auth_plugin();
                    if !matches!(plugin, AuthPlugin::CachingSha2Password | AuthPlugin::MysqlNativePassword) {
                        return Err(DriverError::UnknownAuthPlugin { name: String::from_utf8_lossy(plugin.as_bytes()).into_owned() }.into());
                    }
                    let proof = plugin.gen_data(password, request.plugin_data()).map(|proof| proof.to_vec());
                    self.send(&proof.unwrap_or_default()).await?;
                }
                _ => return Err(unexpected()),
            }
        }
    }

    async fn encrypt(&mut self, config: &MysqlConfig, settings: ClientConfig) -> Result<()> {
        let name = ServerName::try_from(config.host.clone()).map_err(|cause| io(std::io::Error::new(std::io::ErrorKind::InvalidInput, cause)))?;
        // Nothing may have come in the clear after the greeting.
        if self.from != self.upto {
            return Err(unexpected());
        }
        if let Stream::Plain(plain) = std::mem::replace(&mut self.stream, Stream::Gone) {
            self.stream = Stream::Tls(Box::new(TlsConnector::from(Arc::new(settings)).connect(name, plain).await.map_err(io)?));
        }
        Ok(())
    }

    /// Runs a statement without a result.
    pub async fn run(&mut self, statement: &str) -> Result<()> {
        self.gather(statement, 0).await.map(|_| ())
    }

    /// Runs a statement and gathers its rows.
    pub async fn gather(&mut self, statement: &str, width: usize) -> Result<RowBlock> {
        let mut block = RowBlock::new(width);
        let mut more = self.ask(statement, width).await?;
        while more {
            more = self.row(&mut block).await?;
        }
        Ok(block)
    }

    /// Runs a statement and puts its rows into `out`, in blocks of about `size` bytes. The inner error is the sink's; the rest of the
    /// result is then still to come, so the wire is not to be used any more.
    pub async fn rows(&mut self, statement: &str, width: usize, size: usize, out: &mut dyn BlockSink) -> Result<plumbline_sdk::Result<()>> {
        let mut block = RowBlock::new(width);
        let mut more = self.ask(statement, width).await?;
        while more {
            more = self.row(&mut block).await?;
            if block.size() >= size {
                block = match out.put(block).await {
                    Ok(empty) => empty,
                    Err(stopped) => return Ok(Err(stopped)),
                };
            }
        }
        if block.rows() > 0 {
            return Ok(out.put(block).await.map(|_| ()));
        }
        Ok(Ok(()))
    }

    /// Sends a statement and reads up to the first row. False: it has no result.
    async fn ask(&mut self, statement: &str, width: usize) -> Result<bool> {
        if self.busy {
            return Err(DriverError::ConnectionClosed.into());
        }
        self.busy = true;
        self.sequence = 0;
        let mut command = Vec::with_capacity(statement.len() + 1);
        command.push(0x03);
        command.extend_from_slice(statement.as_bytes());
        self.send(&command).await?;
        let first = self.packet().await?;
        let columns = match self.answer(first)? {
            [0x00, ..] if width == 0 => {
                self.busy = false;
                return Ok(false);
            }
            packet => length(packet).filter(|&(_, used)| used == packet.len()).map(|(columns, _)| columns),
        };
        if columns != Some(width) || width == 0 {
            return Err(unexpected());
        }
        for _ in 0..width {
            let column = self.packet().await?;
            self.answer(column)?;
        }
        let end = self.packet().await?;
        if is_end(self.answer(end)?) { Ok(true) } else { Err(unexpected()) }
    }

    /// Adds the next row to `block`; false: there is none.
    async fn row(&mut self, block: &mut RowBlock) -> Result<bool> {
        let range = match self.whole_packet() {
            Some(range) => range,
            None => self.packet().await?,
        };
        let packet = self.answer(range)?;
        if is_end(packet) {
            self.busy = false;
            return Ok(false);
        }
        if take_row(packet, block) { Ok(true) } else { Err(unexpected()) }
    }

    /// The packet in this place of the buffer, unless it is the server's error.
    fn checked(&self, range: Range<usize>) -> Result<&[u8]> {
        let packet = &self.buffer[range];
        if packet.first() == Some(&0xFF) { Err(server_error(packet)) } else { Ok(packet) }
    }

    /// As [`checked`](Self::checked), while an answer is read: the server's error ends it.
    fn answer(&mut self, range: Range<usize>) -> Result<&[u8]> {
        if self.buffer.get(range.start) == Some(&0xFF) && !range.is_empty() {
            self.busy = false;
        }
        self.checked(range)
    }

    /// The next packet's place, where all of it is here already.
    fn whole_packet(&mut self) -> Option<Range<usize>> {
        let [a, b, c, sequence, rest @ ..] = &self.buffer[self.from..self.upto] else { return None };
        let length = usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16;
        if length == FULL || rest.len() < length {
            return None;
        }
        self.sequence = sequence.wrapping_add(1);
        let start = self.from + 4;
        self.from = start + length;
        Some(start..self.from)
    }

    /// The next packet's place in the buffer, its parts joined. It stands until more is read.
    async fn packet(&mut self) -> Result<Range<usize>> {
        let mut joined = 0;
        loop {
            self.need(joined + 4).await?;
            let at = self.from + joined;
            let head = &self.buffer[at..at + 4];
            let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
            self.sequence = head[3].wrapping_add(1);
            // The head goes: what is before it moves up, which is nothing but in a packet of many parts.
            self.buffer.copy_within(self.from..at, self.from + 4);
            self.from += 4;
            joined += length;
            self.need(joined).await?;
            if length < FULL {
                let start = self.from;
                self.from += joined;
                return Ok(start..self.from);
            }
        }
    }

    /// Reads until so many bytes are here.
    async fn need(&mut self, bytes: usize) -> Result<()> {
        while self.upto - self.from < bytes {
            self.buffer.copy_within(self.from..self.upto, 0);
            (self.from, self.upto) = (0, self.upto - self.from);
            if self.buffer.len() < bytes.max(BUFFER) {
                self.buffer.resize(bytes.max(BUFFER), 0);
            }
            let read = self.stream.read(&mut self.buffer[self.upto..]).await.map_err(io)?;
            if read == 0 {
                return Err(DriverError::ConnectionClosed.into());
            }
            self.upto += read;
        }
        Ok(())
    }

    async fn send_struct(&mut self, body: &impl MySerialize) -> Result<()> {
        let mut bytes = Vec::new();
        body.serialize(&mut bytes);
        self.send(&bytes).await
    }

    async fn send(&mut self, body: &[u8]) -> Result<()> {
        let mut framed = Vec::with_capacity(body.len() + 8);
        let mut rest = body;
        loop {
            let (part, more) = rest.split_at(rest.len().min(FULL));
            let length = part.len();
            framed.extend_from_slice(&[length as u8, (length >> 8) as u8, (length >> 16) as u8, self.sequence]);
            framed.extend_from_slice(part);
            self.sequence = self.sequence.wrapping_add(1);
            rest = more;
            if length < FULL {
                return self.stream.write(&framed).await.map_err(io);
            }
        }
    }
}

/// The packet that ends a list: a row that begins with this byte is longer.
fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&0xFE) && packet.len() < 9
}

fn server_error(packet: &[u8]) -> Error {
    let code = packet.get(1..3).map_or(0, |code| u16::from_le_bytes([code[0], code[1]]));
    let rest = packet.get(3..).unwrap_or_default();
    let (state, message) = match rest {
        [b'#', tail @ ..] if tail.len() >= 5 => tail.split_at(5),
        _ => (&b"HY000"[..], rest),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Error::Server(ServerError { code, message: text(message), state: text(state) })
}

/// A length as the protocol packs it, and how many bytes it took. None: it is none, or cut off.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let width = match first {
        0..=0xFA => return Some((usize::from(first), 1)),
        0xFC => 2,
        0xFD => 3,
        0xFE => 8,
        _ => return None,
    };
    let number = rest.get(..width)?.iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
    Some((usize::try_from(number).ok()?, width + 1))
}

/// Takes a row of the text protocol apart into the next row of `block`. False: it does not have the block's width; the block is then not to
/// be used.
fn take_row(packet: &[u8], block: &mut RowBlock) -> bool {
    let mut rest = packet;
    for _ in 0..block.width() {
        match rest {
            [0xFB, tail @ ..] => {
                block.push(None);
                rest = tail;
            }
            _ => {
                let Some((length, used)) = length(rest) else { return false };
                let Some((cell, tail)) = rest[used..].split_at_checked(length) else { return false };
                block.push(Some(cell));
                rest = tail;
            }
        }
    }
    rest.is_empty()
}

/// How the configuration wants to be encrypted; None: not at all.
fn tls(config: &MysqlConfig) -> Result<Option<ClientConfig>> {
    let failed = |cause: rustls::Error| io(std::io::Error::new(std::io::ErrorKind::InvalidData, cause));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().map_err(failed)?;
    Ok(match config.ssl_mode {
        SslMode::Disabled => None,
        SslMode::Preferred | SslMode::Required => {
            Some(builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth())
        }
        SslMode::VerifyCa | SslMode::VerifyIdentity => {
            let mut roots = rustls::RootCertStore::empty();
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            if let Some(path) = &config.ssl_ca {
                let unreadable = |cause| io(std::io::Error::other(cause));
                for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                    roots.add(certificate.map_err(unreadable)?).map_err(failed)?;
                }
            }
            Some(builder.with_root_certificates(roots).with_no_client_auth())
        }
    })
}

/// Encrypts without asking who the server is, as `preferred` and `required` promise no more.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, message: &[u8], certificate: &CertificateDer<'_>, signature: &rustls::DigitallySignedStruct) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(&self, message: &[u8], certificate: &CertificateDer<'_>, signature: &rustls::DigitallySignedStruct) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(packet: &[u8], expected: Option<&[Option<&[u8]>]>) {
        let width = expected.map_or(2, <[_]>::len);
        let mut block = RowBlock::new(width);
        assert_eq!(take_row(packet, &mut block), expected.is_some(), "{packet:?}");
        if let Some(expected) = expected {
            let got: Vec<_> = (0..width).map(|i| block.cell(0, i)).collect();
            assert_eq!(got, expected, "{packet:?}");
        }
    }

    #[test]
    fn a_row_is_taken_apart() {
        check(b"\x011\xFB\x00", Some(&[Some(b"1"), None, Some(b"")]));
        let mut long = vec![0xFC, 0x2C, 0x01];
        long.extend_from_slice(&[b'x'; 300]);
        check(&long, Some(&[Some(&[b'x'; 300])]));
        check(b"\xFD\x01\x00\x00y\xFE\x01\0\0\0\0\0\0\0z", Some(&[Some(b"y"), Some(b"z")]));
    }

    #[test]
    fn a_row_of_another_width_or_cut_off_is_refused() {
        for packet in [&b"\x011"[..], b"\x011\x012\x013", b"\x011\x05ab", b"\x011\xFC\x05", b"\x011\xFF", b"\x011\xFE\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"] {
            check(packet, None);
        }
    }

    #[test]
    fn the_server_s_error_is_read() {
        let Error::Server(error) = server_error(b"\xFF\x15\x04#28000Access denied") else { panic!("another kind") };
        assert_eq!((error.code, error.state.as_str(), error.message.as_str()), (1045, "28000", "Access denied"));
        let Error::Server(error) = server_error(b"\xFF\x10\x04Too many") else { panic!("another kind") };
        assert_eq!((error.code, error.message.as_str()), (1040, "Too many"));
    }

    #[test]
    fn a_short_packet_of_this_byte_ends_a_list() {
        assert!(is_end(b"\xFE\0\0\x02\0"));
        assert!(!is_end(b"\xFE\x01\0\0\0\0\0\0\0z"));
        assert!(!is_end(b"\x01\xFE"));
    }
}
