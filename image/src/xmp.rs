//! Adapts XMP to a result: sets numbers, and removes the descriptions of other parts of its file (gain maps, motion
//! photos, further pictures, thumbnails), which results do not contain.

/// Namespaces that only describe other parts, and the prefixes that files use for them even without a declaration.
const OTHER_PARTS: [&str; 8] = [
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "hdrgm",
    "http://ns.google.com/photos/1.0/container/",
    "Container",
    "http://ns.google.com/photos/1.0/container/item/",
    "Item",
    "http://ns.adobe.com/xap/1.0/g/img/",
    "xapGImg",
];
/// Beginnings of names that describe other parts, in namespaces that describe the picture as well.
const PROPERTIES: [([&str; 2], &[&str]); 2] = [
    (
        ["http://ns.google.com/photos/1.0/camera/", "GCamera"],
        &["MotionPhoto", "MicroVideo"],
    ),
    (["http://ns.adobe.com/xap/1.0/", "xmp"], &["Thumbnails"]),
];

/// Returns XMP without elements and attributes about other parts of the file. `None` if the XMP cannot be parsed.
pub(super) fn without_other_parts(xmp: Vec<u8>) -> Option<Vec<u8>> {
    let Ok(text) = str::from_utf8(&xmp) else {
        return Some(xmp);
    };
    let mut names = PROPERTIES
        .iter()
        .flat_map(|(_, names)| *names)
        .chain(&OTHER_PARTS);
    if !names.any(|name| text.contains(name)) {
        return Some(xmp);
    }
    let spaces = Spaces::of(text);
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    // The number of open elements, counted from the first open element that is left out.
    let mut left_out = 0usize;
    while let Some(start) = rest.find('<') {
        let (before, from) = rest.split_at(start);
        let (markup, after) = from.split_at_checked(markup_len(from)?)?;
        rest = after;
        if left_out == 0 {
            kept.push_str(before);
        }
        let is_element = !markup.starts_with("<!") && !markup.starts_with("<?");
        match (markup.starts_with("</"), left_out) {
            (true, 1..) => left_out -= 1,
            (false, _) if is_element => {
                let opens = usize::from(!markup.ends_with("/>"));
                match left_out > 0 || spaces.is_of_other_part(name_of(markup)) {
                    true => left_out += opens,
                    false => spaces.push_element(markup, &mut kept)?,
                }
            }
            (_, 0) => kept.push_str(markup),
            _ => {}
        }
    }
    kept.push_str(rest);
    (left_out == 0).then(|| kept.into_bytes())
}

/// Replaces a number in XMP where it exists, as an attribute or an element.
pub(super) fn set_number(xmp: &mut Vec<u8>, name: &str, number: u32) {
    for before in [
        format!("{name}=\""),
        format!("{name}='"),
        format!("<{name}>"),
    ] {
        let mut windows = xmp.windows(before.len());
        let Some(at) = windows.position(|window| window == before.as_bytes()) else {
            continue;
        };
        let start = at + before.len();
        let digits = xmp[start..].iter().take_while(|byte| byte.is_ascii_digit());
        let end = start + digits.count();
        if start < end {
            xmp.splice(start..end, number.to_string().into_bytes());
        }
    }
}

/// Returns the length of the tag, comment or instruction at the start of a text.
fn markup_len(text: &str) -> Option<usize> {
    for (start, end) in [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")] {
        if let Some(inner) = text.strip_prefix(start) {
            return Some(start.len() + inner.find(end)? + end.len());
        }
    }
    let mut quote = None;
    let end = text.bytes().position(|byte| match (quote, byte) {
        (None, b'>') => true,
        (None, b'"' | b'\'') => {
            quote = Some(byte);
            false
        }
        (Some(open), _) => {
            quote = quote.filter(|_| open != byte);
            false
        }
        _ => false,
    });
    Some(end? + 1)
}

/// Returns the name in a start tag.
fn name_of(tag: &str) -> &str {
    let inner = &tag[1..];
    let end = inner.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>'));
    &inner[..end.unwrap_or(inner.len())]
}

/// The prefixes that a text declares, with their namespaces.
struct Spaces<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Spaces<'a> {
    fn of(text: &'a str) -> Self {
        let declared = |after: &'a str| {
            let (prefix, value) = after.split_once('=')?;
            let value = value.trim_ascii_start();
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let (space, _) = value[1..].split_once(quote)?;
            Some((prefix.trim_ascii_end(), space))
        };
        let all = text.split("xmlns:").skip(1);
        Self(all.filter_map(declared).collect())
    }

    fn is_of_other_part(&self, name: &str) -> bool {
        let Some((prefix, local)) = name.split_once(':') else {
            return false;
        };
        let declared = self.0.iter().find(|(declared, _)| *declared == prefix);
        let space = declared.map_or(prefix, |(_, space)| space);
        let is_property = |(spaces, names): &([&str; 2], &[&str])| {
            spaces.contains(&space) && names.iter().any(|name| local.starts_with(name))
        };
        OTHER_PARTS.contains(&space) || PROPERTIES.iter().any(is_property)
    }

    /// Appends a start tag without its attributes about other parts.
    fn push_element(&self, tag: &str, kept: &mut String) -> Option<()> {
        let (start, mut rest) = tag.split_at(1 + name_of(tag).len());
        kept.push_str(start);
        while let Some((before, after)) = rest.split_once('=') {
            let value = after.trim_ascii_start();
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let end = value[1..].find(quote)? + 2;
            let (value, after) = value.split_at(end);
            let name = before.trim_ascii();
            let declares_other =
                name.starts_with("xmlns:") && OTHER_PARTS.contains(&value.trim_matches(quote));
            if !declares_other && !self.is_of_other_part(name) {
                kept.push_str(before);
                kept.push('=');
                kept.push_str(value);
            }
            rest = after;
        }
        kept.push_str(rest);
        Some(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::without_other_parts;

    fn kept(xmp: &str) -> Option<String> {
        without_other_parts(xmp.as_bytes().to_vec()).map(|kept| String::from_utf8(kept).unwrap())
    }

    #[test]
    fn only_what_is_about_other_parts_is_left_out() {
        let (gain, container) = (
            "http://ns.adobe.com/hdr-gain-map/1.0/",
            "http://ns.google.com/photos/1.0/container/",
        );
        for (file, expected) in [
            ("<a:b hdrgm:Version=\"1.0\" c:d='e'/>", "<a:b c:d='e'/>"),
            (
                "<a><hdrgm:X>1<b/></hdrgm:X><!-- > --> <c/></a>",
                "<a><!-- > --> <c/></a>",
            ),
            (
                &format!("<a xmlns:h = '{gain}' h:Max='>' b='1'><h:Min/>2</a>"),
                "<a b='1'>2</a>",
            ),
            (
                &format!("<a xmlns:G=\"{container}\"><G:D><G:D/><b></b></G:D ><c>d</c></a>"),
                "<a><c>d</c></a>",
            ),
            (
                "<a GCamera:MotionPhotoVersion='1' GCamera:Other='2'/>",
                "<a GCamera:Other='2'/>",
            ),
            (
                "<a><xmp:Thumbnails>x</xmp:Thumbnails><xmp:Rating>5</xmp:Rating></a>",
                "<a><xmp:Rating>5</xmp:Rating></a>",
            ),
            (
                "<?xpacket ><?><a b=\"hdrgm:x\"/> \n<?xpacket end='w'?>",
                "<?xpacket ><?><a b=\"hdrgm:x\"/> \n<?xpacket end='w'?>",
            ),
        ] {
            assert_eq!(kept(file).as_deref(), Some(expected), "{file}");
        }
        for broken in [
            "<a><hdrgm:X>",
            "<a hdrgm:b='1",
            "<a hdrgm:b=c/>",
            "hdrgm:<!-- ",
        ] {
            assert_eq!(kept(broken), None, "{broken}");
        }
    }
}
