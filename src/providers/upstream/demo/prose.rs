//! Prose: an endless supply of words about rivers, weirs and software, the same for the same seed.

use std::collections::VecDeque;

/// Sentences that say what the answer is about; `@` is the topic.
const OPENINGS: &[&str] = &[
    "Let me begin with @, and with the water that carries most of what I know.",
    "You asked about @, which is a good reason to walk along the bank for a while.",
    "There are two ways to look at @: from the bridge, and from the boat.",
    "Whoever wants to understand @ does well to watch a river first.",
    "@ looks simple from a distance, as a stream does from the air.",
];

/// Sentences that come back to it.
const RETURNS: &[&str] = &[
    "With @ it is no different.",
    "Seen this way, @ is a question of where to put the gate.",
    "That is also the part of @ that most people find out last.",
    "Keep @ in mind while we go on downstream.",
];

const SENTENCES: &[&str] = &[
    "A weir does not stop a river; it decides how high the river stands before it goes on.",
    "The water above it is calm, and the calm is worth more than the height.",
    "Below it the stream spreads out and every field gets its share.",
    "Whoever opens the gate too fast digs a hole that the next flood will find.",
    "A good gate has few parts, and each of them can be reached from dry land.",
    "Old millers knew the sound of their wheel so well that silence woke them up.",
    "Queues are like ponds: useful when they are small, and home to strange things when they are not.",
    "A buffer without a limit is a promise that somebody else will have to keep.",
    "It is better to say no at the gate than to drown in the yard.",
    "The first drop tells you that the pipe is whole; the last one tells you that it ended.",
    "Between the two lies everything that people call throughput.",
    "A leaf on the water shows the speed of the stream better than any calculation.",
    "Fish climb a ladder one pool at a time, and so do careful migrations.",
    "If ten neighbours ask for the same bucket, fill it once and let them share.",
    "The one who came first may leave; the bucket stays until nobody wants it.",
    "Stopping is a skill of its own, and it has to work in every weather.",
    "A canal without an overflow has one too, only nobody chose where it is.",
    "Engineers measure the gauge every morning, even when nothing has happened for years.",
    "That is how they know what nothing looks like.",
    "Ice is patient; it waits for the one joint that was never drained.",
    "Every dam has a story in which the alarm was right and nobody believed it.",
    "The best logs are short, and they were written before the trouble began.",
    "Rivers do not retry: what has passed is gone, and the rest arrives in order.",
    "A boat that lags behind should not make the whole convoy wait.",
    "Give it a rope, tell it the distance, and let it catch up in its own time.",
    "Locks work because both gates are never open at once.",
    "Nobody thanks the person who cleaned the grate, until the autumn in which nobody does.",
    "Small streams carry more stories than large ones, for they pass closer to the houses.",
    "When the level rises slowly, people move their chairs; when it rises fast, they move.",
    "A map of the river is not the river, but it is easier to fold.",
    "Stone forgets nothing, which makes it a good foundation and a poor friend.",
    "In a dry year you see how the bed was built, and whether it was built at all.",
    "Simple machines fail in simple ways, and that is most of their charm.",
    "The valley has learned to live with the flood by writing down how high it came.",
    "What you cannot measure at the gate you will argue about in the village.",
    "Two meters of water weigh the same on every door of the same size.",
    "It takes a minute to open a sluice and a season to earn the right to do it.",
    "The heron stands still because it has understood where the current brings its supper.",
    "Wood swells and makes the gate tight, so a gate that is never used begins to leak.",
    "Most of the work is upstream, and most of the applause is downstream.",
];

const THOUGHTS: &[&str] = &[
    "The question is about @, so I should say what it is before I say what it is good for.",
    "A picture may help here, and a river is the one that I know best.",
    "I should keep it short, and not promise more than water can hold.",
    "Is there a case in which this goes wrong? Yes, when the gate is left open at night.",
    "I will begin with the calm part and come to the rapids later.",
];

const LIST: &str = "\n\n- **Above the gate:** calm, deep, and full of patience\n- **At the gate:** one decision at a \
                    time\n- **Below the gate:** the same water, shared by everybody\n\n";

const TABLE: &str = "\n\n| Place | Depth | What it is for |\n|---|---|---|\n| Pool | 2.4 m | keeping a reserve |\n| \
                     Gate | 0.8 m | deciding |\n| Channel | 1.1 m | bringing it to the fields |\n\n";

const CODE: &str = "\n\n```rust\n/// Lets water through, but never more than the channel can take.\nfn open(gate: &mut \
                    Gate, level_mm: u32) -> u32 {\n    let surplus = level_mm.saturating_sub(gate.crest_mm);\n    \
                    surplus.min(gate.channel_max_mm)\n}\n```\n\n";

/// The places that the demo cites. The domain is reserved for examples.
pub(super) const SOURCES: [(&str, &str); 3] = [
    ("https://example.org/rivers/weirs", "Weirs and what they hold back"),
    ("https://example.org/rivers/gauges", "Reading a gauge every morning"),
    ("https://example.org/software/queues", "Ponds, queues and their limits"),
];

/// A small generator of numbers; the same for the same seed, good enough for prose and jitter.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides.max(1)
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap_or(0)]
    }
}

/// A word with the whitespace in front of it: what the demo calls a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// Whether an answer may end here.
    pub(super) ends: bool,
}

/// Which Markdown an answer has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    pub(super) list: bool,
    pub(super) table: bool,
    pub(super) code: bool,
    pub(super) cites: bool,
}

impl Shape {
    /// The Markdown that was wished for, in the order in which it comes.
    fn blocks(self) -> impl Iterator<Item = &'static str> {
        let blocks = [(self.list, LIST), (self.table, TABLE), (self.code, CODE)];
        blocks.into_iter().filter(|(wished, _)| *wished).map(|(_, block)| block)
    }

    /// How many words the Markdown takes.
    pub(super) fn words(self) -> usize {
        self.blocks().map(|block| block.split_whitespace().count()).sum()
    }
}

/// Writes one answer. Endless; the reader decides where to stop.
#[derive(Debug)]
pub(super) struct Prose {
    dice: Dice,
    topic: String,
    shape: Shape,
    ready: VecDeque<Token>,
    /// Sentences that have not been used since the last shuffle.
    unused: Vec<&'static str>,
    paragraphs: u64,
    /// Sentences until the paragraph ends.
    left: u64,
}

impl Prose {
    /// An answer about `topic`.
    pub(super) fn new(dice: Dice, topic: &str, shape: Shape) -> Self {
        let (topic, ready) = (topic.to_owned(), VecDeque::new());
        Self { dice, topic, shape, ready, unused: Vec::new(), paragraphs: 0, left: 0 }
    }

    /// A few thoughts about `topic`; these end.
    pub(super) fn thoughts(dice: &mut Dice, topic: &str) -> VecDeque<Token> {
        let first = usize::try_from(dice.roll(2)).unwrap_or(0);
        let mut tokens = VecDeque::new();
        for thought in &THOUGHTS[first..first + 3] {
            push(&mut tokens, " ", &thought.replace('@', topic));
        }
        tokens
    }

    /// The next word.
    pub(super) fn token(&mut self) -> Token {
        while self.ready.is_empty() {
            self.write();
        }
        self.ready.pop_front().unwrap_or(Token { text: String::new(), ends: true })
    }

    /// Writes the next sentence, or what stands between two paragraphs.
    fn write(&mut self) {
        if self.left > 0 {
            self.left -= 1;
            let sentence = self.sentence();
            push(&mut self.ready, " ", &sentence);
        } else {
            self.paragraphs += 1;
            self.left = 2 + self.dice.roll(3);
            let sentence = match self.paragraphs {
                1 => capitalized(&self.dice.pick(OPENINGS).replace('@', &self.topic)),
                _ => self.sentence(),
            };
            let gap = if self.paragraphs == 1 { "" } else { "\n\n" };
            push(&mut self.ready, gap, &sentence);
        }
        if self.left == 0 {
            self.end_paragraph();
        }
    }

    fn end_paragraph(&mut self) {
        if self.shape.cites
            && let Some(last) = self.ready.back_mut()
        {
            last.text.push_str(&format!("[{}]", (self.paragraphs - 1) % SOURCES.len() as u64 + 1));
        }
        if self.paragraphs == 1 {
            self.shape.blocks().for_each(|block| push_block(&mut self.ready, block));
        }
    }

    fn sentence(&mut self) -> String {
        if self.dice.roll(7) == 0 {
            return capitalized(&self.dice.pick(RETURNS).replace('@', &self.topic));
        }
        if self.unused.is_empty() {
            self.unused = SENTENCES.to_vec();
        }
        let at = usize::try_from(self.dice.roll(self.unused.len() as u64)).unwrap_or(0);
        self.unused.swap_remove(at).to_owned()
    }
}

/// Cuts a sentence into tokens, the first one after `gap`.
fn push(tokens: &mut VecDeque<Token>, gap: &str, sentence: &str) {
    let mut gap = gap;
    for word in sentence.split(' ') {
        tokens.push_back(Token { text: format!("{gap}{word}"), ends: false });
        gap = " ";
    }
    if let Some(last) = tokens.back_mut() {
        last.ends = true;
    }
}

/// Cuts Markdown into tokens; every character stays where it is.
fn push_block(tokens: &mut VecDeque<Token>, block: &str) {
    let body = block.trim_end();
    let mut rest = body;
    while !rest.is_empty() {
        let word = rest.find(|char: char| !char.is_whitespace()).unwrap_or(0);
        let end = rest[word..].find(char::is_whitespace).map_or(rest.len(), |len| word + len);
        let (token, tail) = rest.split_at(end);
        tokens.push_back(Token { text: token.to_owned(), ends: tail.is_empty() });
        rest = tail;
    }
}

fn capitalized(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
