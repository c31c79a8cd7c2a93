//! Address: which base URLs are accepted. The scheme is https, or http where nobody in between can listen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a base URL has to look like.
const EXPECTED: &str =
    "expected a URL such as https://example.com/v1: a scheme, a host, and no user, query or fragment";

/// Top-level names that never leave the local network.
const PRIVATE_SUFFIXES: [&str; 6] = [".localhost", ".local", ".internal", ".lan", ".home.arpa", ".test"];

/// `Err` says what is wrong with a base URL, without repeating it: it may contain a password.
pub(super) fn check_base_url(url: &str) -> Result<(), &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or(EXPECTED)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = Host::parse_with_port(authority).ok_or(EXPECTED)?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\\\"<>^`{|}".contains(&byte);
    if !path.bytes().all(plain) {
        return Err(EXPECTED);
    }
    match scheme {
        "https" => Ok(()),
        "http" if host.is_private() => Ok(()),
        "http" => Err("http:// is for loopback and private addresses only: anybody in between could read the key"),
        _ => Err("expected a URL that begins with https://, or http:// for private servers"),
    }
}

/// Whether the text is a host as in `Host`, without a port.
pub(super) fn is_host(text: &str) -> bool {
    Host::parse(text).is_some()
}

/// Whether the text is an origin as browsers write it: lower case, and a port only where it is not the scheme's own.
pub(super) fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    let is_usual = match scheme {
        "http" => authority.ends_with(":80"),
        "https" => authority.ends_with(":443"),
        _ => false,
    };
    let is_lower = !authority.bytes().any(|byte| byte.is_ascii_uppercase());
    is_scheme && is_lower && !is_usual && Host::parse_with_port(authority).is_some()
}

/// The host of a URL.
enum Host<'a> {
    Address(IpAddr),
    Name(&'a str),
}

impl<'a> Host<'a> {
    fn parse_with_port(authority: &'a str) -> Option<Self> {
        let after_brackets = authority.find(']').map_or(0, |end| end + 1);
        let (host, port) = match authority[after_brackets..].find(':') {
            Some(colon) => authority.split_at(after_brackets + colon),
            None => (authority, ":1"),
        };
        let port = &port[1..];
        let fits = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0);
        if fits { Self::parse(host) } else { None }
    }

    fn parse(host: &'a str) -> Option<Self> {
        if let Some(inner) = host.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(address.into()));
        }
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let label = |label: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len()) && label.bytes().all(plain)
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        // Resolvers take a name that ends in a number for an address in an odd notation.
        let odd = name.rsplit('.').next().is_some_and(is_number);
        let fits = name.len() <= 253 && name.split('.').all(label) && !odd;
        fits.then_some(Self::Name(name))
    }

    /// Whether it cannot be a server of the public internet.
    fn is_private(&self) -> bool {
        match self {
            Host::Address(address) => is_private(*address),
            Host::Name(name) => {
                let name = name.to_ascii_lowercase();
                !name.contains('.') || PRIVATE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
            }
        }
    }
}

/// Whether a resolver could take the label for a number.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or(label.strip_prefix("0X"));
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            let carrier = a == 100 && (64..128).contains(&b);
            address.is_loopback() || address.is_private() || address.is_link_local() || carrier
        }
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_goes_anywhere() {
        let urls = ["https://api.openai.com/v1", "https://a.b:8443", "https://[2606:4700::1]/v1", "https://8.8.8.8"];
        for url in urls {
            assert_eq!(check_base_url(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn http_goes_to_loopback_and_private_servers() {
        let hosts = "127.0.0.1:11434 127.9.9.9 [::1]:80 localhost a.localhost ollama 4090-box gpu.local gpu.Internal. \
                     box.lan 10.1.2.3 172.16.0.1 192.168.7.7 169.254.1.1 100.64.0.1 [fd00::1] [fe80::1] \
                     [::ffff:10.0.0.1]";
        for host in hosts.split_whitespace() {
            assert_eq!(check_base_url(&format!("http://{host}/v1")), Ok(()), "{host}");
        }
    }

    #[test]
    fn http_does_not_go_to_public_servers() {
        let hosts = "api.openai.com example.com:80 8.8.8.8 172.32.0.1 100.128.0.1 0.0.0.0 [2606:4700::1] \
                     [::ffff:8.8.8.8] localhost.example.com 10.0.0.1.example.com";
        for host in hosts.split_whitespace() {
            let refused = check_base_url(&format!("http://{host}"));
            assert!(refused.is_err_and(|why| why.contains("private")), "{host}");
        }
    }

    #[test]
    fn what_is_no_plain_url_is_refused() {
        let urls = "api.openai.com https:/a https:// https://:80 https://a:0 https://a:x https://a:65536 https://a:+1 \
                    https://user:pass@a https://a@b ftp://a file:///etc/passwd https://a/?q https://a/#f https://a?q \
                    HTTPS://a http://2130706433 http://0x7f.1 http://127.1 https://a..b https://-é https://[::1 \
                    https://[::1]x https://::1 https://[fe80::1%25eth0]";
        for url in urls.split_whitespace() {
            assert!(check_base_url(url).is_err(), "{url}");
        }
        for url in ["", "https://a b", "https://a/b c", "https://a/\n"] {
            assert!(check_base_url(url).is_err(), "{url:?}");
        }
    }
}
