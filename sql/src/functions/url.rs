//! `PARSE_URL`: the parts of a URL, cut as Java's `java.net.URL` cuts them.

use arrow::array::ArrayRef;
use datafusion_common::Result;

use super::call::Call;
use super::definition::Kind::Text;
use super::definition::{Function, Nulls, Takes, gives};

pub(crate) static URL: &[Function] = &[Function::new(
    "PARSE_URL",
    "PARSE_URL(url, part[, key])",
    "HOST, PATH, QUERY, REF, PROTOCOL, FILE, AUTHORITY, USERINFO or a value of QUERY: PARSE_URL('http://a.b/c?k=1', 'QUERY', 'k') = '1'",
    Takes::These(2, &[Text, Text, Text]),
    gives::text,
    Nulls::Own,
    parse_url,
)];

/// The protocols of which Java knows how to read the URL.
const PROTOCOLS: &[&str] = &["http", "https", "ftp", "file", "jar", "mailto", "jrt", "jmod"];

/// A URL's parts.
#[derive(Debug, PartialEq, Eq)]
struct Url<'a> {
    protocol: &'a str,
    authority: Option<&'a str>,
    path: &'a str,
    /// The path with the query.
    file: &'a str,
    query: Option<&'a str>,
    reference: Option<&'a str>,
}

fn parse(text: &str) -> Option<Url<'_>> {
    let text = text.trim_matches(|c| c <= ' ');
    let text = text.get(..4).filter(|start| start.eq_ignore_ascii_case("url:")).map_or(text, |_| &text[4..]);
    let (protocol, rest) = text.split_once(':')?;
    let known = PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(protocol));
    if !known {
        return None;
    }
    let (rest, reference) = match rest.split_once('#') {
        Some((rest, reference)) => (rest, Some(reference)),
        None => (rest, None),
    };
    let (rest, authority) = match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            (&rest[end..], Some(&rest[..end]))
        }
        None => (rest, None),
    };
    if authority.and_then(port).is_some_and(|port| !port.is_empty() && port.parse::<u16>().is_err()) {
        return None;
    }
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    Some(Url { protocol, authority, path, file: rest, query, reference })
}

/// The address in an authority, with its port.
fn address(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, address)| address)
}

fn port(authority: &str) -> Option<&str> {
    let address = address(authority);
    let after = address.rfind(']').map_or(0, |end| end + 1);
    address[after..].split_once(':').map(|(_, port)| port)
}

fn host(authority: &str) -> &str {
    let address = address(authority);
    match port(authority) {
        Some(port) => &address[..address.len() - port.len() - 1],
        None => address,
    }
}

impl<'a> Url<'a> {
    fn part(&self, name: &str) -> Option<&'a str> {
        match name {
            "HOST" => Some(self.authority.map_or("", host)),
            "PATH" => Some(self.path),
            "QUERY" => self.query,
            "REF" => self.reference,
            "FILE" => Some(self.file),
            "AUTHORITY" => self.authority,
            "USERINFO" => self.authority?.rsplit_once('@').map(|(user, _)| user),
            _ => None,
        }
    }

    /// A key's first value in the query.
    fn value(&self, key: &str) -> Option<&'a str> {
        self.query?.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    }
}

fn parse_url(call: &Call<'_>) -> Result<ArrayRef> {
    let (urls, parts) = (call.texts(0)?, call.texts(1)?);
    let keys = if call.len() > 2 { Some(call.texts(2)?) } else { None };
    call.text_rows(|row, out| {
        let (url, part) = (parse(urls.get(row)?)?, parts.get(row)?);
        match &keys {
            Some(keys) => {
                let key = keys.get(row)?;
                out.push_str(if part == "QUERY" { url.value(key)? } else { return None });
            }
            None if part == "PROTOCOL" => {
                out.push_str(url.protocol);
                out.make_ascii_lowercase();
            }
            None => out.push_str(url.part(part)?),
        }
        Some(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_have_users_hosts_and_ports() {
        assert_eq!(host("user:pw@a.b:80"), "a.b");
        assert_eq!(host("[::1]:8080"), "[::1]");
        assert_eq!(port("[::1]"), None);
        assert!(parse("http://a:99999/").is_none());
        assert!(parse("foo://a/").is_none());
        assert_eq!(parse("http://a?x=1&xy=2").and_then(|url| url.value("xy")), Some("2"));
    }
}
