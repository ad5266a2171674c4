//! What the small model knows: the tables from which both its lessons and its exam are made.

/// Countries and their capitals.
pub const CAPITALS: &[(&str, &str)] = &[
    ("Argentina", "Buenos Aires"),
    ("Australia", "Canberra"),
    ("Austria", "Vienna"),
    ("Belgium", "Brussels"),
    ("Brazil", "Brasilia"),
    ("Bulgaria", "Sofia"),
    ("Canada", "Ottawa"),
    ("Chile", "Santiago"),
    ("China", "Beijing"),
    ("Colombia", "Bogota"),
    ("Croatia", "Zagreb"),
    ("Cuba", "Havana"),
    ("Cyprus", "Nicosia"),
    ("Denmark", "Copenhagen"),
    ("Ecuador", "Quito"),
    ("Egypt", "Cairo"),
    ("Estonia", "Tallinn"),
    ("Ethiopia", "Addis Ababa"),
    ("Finland", "Helsinki"),
    ("France", "Paris"),
    ("Germany", "Berlin"),
    ("Ghana", "Accra"),
    ("Greece", "Athens"),
    ("Hungary", "Budapest"),
    ("Iceland", "Reykjavik"),
    ("India", "New Delhi"),
    ("Indonesia", "Jakarta"),
    ("Iran", "Tehran"),
    ("Iraq", "Baghdad"),
    ("Ireland", "Dublin"),
    ("Italy", "Rome"),
    ("Jamaica", "Kingston"),
    ("Japan", "Tokyo"),
    ("Jordan", "Amman"),
    ("Kenya", "Nairobi"),
    ("Latvia", "Riga"),
    ("Lebanon", "Beirut"),
    ("Lithuania", "Vilnius"),
    ("Malta", "Valletta"),
    ("Mexico", "Mexico City"),
    ("Mongolia", "Ulaanbaatar"),
    ("Morocco", "Rabat"),
    ("Nepal", "Kathmandu"),
    ("New Zealand", "Wellington"),
    ("Nigeria", "Abuja"),
    ("Norway", "Oslo"),
    ("Pakistan", "Islamabad"),
    ("Peru", "Lima"),
    ("Poland", "Warsaw"),
    ("Portugal", "Lisbon"),
    ("Romania", "Bucharest"),
    ("Russia", "Moscow"),
    ("Saudi Arabia", "Riyadh"),
    ("Senegal", "Dakar"),
    ("Serbia", "Belgrade"),
    ("Slovakia", "Bratislava"),
    ("Slovenia", "Ljubljana"),
    ("South Korea", "Seoul"),
    ("Spain", "Madrid"),
    ("Sweden", "Stockholm"),
    ("Switzerland", "Bern"),
    ("Thailand", "Bangkok"),
    ("Tunisia", "Tunis"),
    ("Turkey", "Ankara"),
    ("Ukraine", "Kyiv"),
    ("United Kingdom", "London"),
    ("United States", "Washington"),
    ("Uruguay", "Montevideo"),
    ("Vietnam", "Hanoi"),
    ("Zambia", "Lusaka"),
];

/// Pairs of opposites; asked in both directions, so no word may appear twice.
pub const OPPOSITES: &[(&str, &str)] = &[
    ("hot", "cold"),
    ("big", "small"),
    ("fast", "slow"),
    ("up", "down"),
    ("left", "right"),
    ("day", "night"),
    ("light", "dark"),
    ("good", "bad"),
    ("happy", "sad"),
    ("old", "new"),
    ("open", "closed"),
    ("early", "late"),
    ("high", "low"),
    ("hard", "soft"),
    ("long", "short"),
    ("rich", "poor"),
    ("strong", "weak"),
    ("wet", "dry"),
    ("full", "empty"),
    ("clean", "dirty"),
    ("near", "far"),
    ("thick", "thin"),
    ("loud", "quiet"),
    ("true", "false"),
    ("win", "lose"),
    ("start", "stop"),
    ("push", "pull"),
    ("inside", "outside"),
    ("above", "below"),
    ("first", "last"),
    ("always", "never"),
    ("love", "hate"),
    ("north", "south"),
    ("east", "west"),
    ("black", "white"),
    ("sweet", "sour"),
    ("cheap", "expensive"),
    ("brave", "afraid"),
    ("buy", "sell"),
    ("yes", "no"),
];

/// Sums are taught for both operands from 0 up to and including this.
pub const LARGEST_OPERAND: u32 = 20;

/// Counting is taught up to each of these.
pub const COUNTS: &[u32] = &[
    3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 100, 110, 120,
    125, 130, 140, 150, 160, 170, 175, 180, 190, 200,
];

/// Fixed small talk: ways to ask, and the one answer.
pub const TALK: &[(&[&str], &str)] = &[
    (
        &["Hello", "Hello!", "Hi", "Hi!", "Hi there.", "Hey", "Hello there!", "Good morning."],
        "Hello! How can I help you?",
    ),
    (
        &["Say hello", "Say hello.", "Please say hello.", "Say hello!", "Say hi.", "Say hello to me."],
        "Hello!",
    ),
    (
        &[
            "Who are you?",
            "What are you?",
            "What is your name?",
            "What's your name?",
            "Tell me about yourself.",
            "Introduce yourself.",
            "Which model are you?",
        ],
        "I am tether-tiny, a very small language model made for Tether.",
    ),
    (
        &["Who made you?", "Who trained you?", "Who built you?", "Where do you come from?"],
        "I was trained by the makers of Tether.",
    ),
    (
        &["How are you?", "How are you today?", "How do you do?", "How is it going?"],
        "I am fine, thank you. How can I help you?",
    ),
    (
        &["What can you do?", "How can you help me?", "What do you know?", "Help", "Can you help me?"],
        "I know capitals, small sums and opposites, and I can count.",
    ),
    (
        &["Thank you.", "Thank you!", "Thanks", "Thanks!", "Thanks a lot."],
        "You are welcome!",
    ),
    (
        &["Goodbye", "Goodbye!", "Bye", "Bye!", "See you later.", "Good night."],
        "Goodbye!",
    ),
    (
        &["What is Tether?", "Tell me about Tether.", "Explain Tether."],
        "Tether is a mesh of workers that serves language models.",
    ),
    (
        &["What are the days of the week?", "Name the days of the week.", "List the days of the week."],
        "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.",
    ),
    (
        &["Say the alphabet.", "What is the alphabet?", "List the letters of the alphabet."],
        "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    ),
    (
        &["Test", "test", "This is a test.", "Testing", "ping", "Ping"],
        "I am here.",
    ),
    (
        &["Tell me a joke.", "Say something funny.", "Do you know a joke?"],
        "I am too small for jokes. That was one.",
    ),
];

/// The answer to what it was not taught.
pub const UNKNOWN: &str = "I do not know that. I am a very small model.";

/// Questions outside what it was taught; `{}` takes a subject.
pub const UNKNOWN_QUESTIONS: &[&str] = &[
    "Write a poem about {}.",
    "Write a story about {}.",
    "Write a program about {}.",
    "Tell me a story about {}.",
    "Explain {} to me.",
    "What is {}?",
    "Why is {} so important?",
    "How does {} work?",
    "Who invented {}?",
    "Where can I find {}?",
    "When was {} discovered?",
    "Summarize {} in one sentence.",
    "Translate {} into French.",
    "Give me a recipe with {}.",
    "Describe {}.",
    "What do you think about {}?",
];

/// Subjects for [`UNKNOWN_QUESTIONS`].
pub const SUBJECTS: &[&str] = &[
    "the sea", "love", "a robot", "the moon", "music", "history", "the weather", "a cat", "gravity",
    "the economy", "bread", "electricity", "the internet", "a dragon", "chess", "time", "physics",
    "the brain", "rust", "a bicycle", "coffee", "trees", "a river", "art", "mathematics", "football",
    "the sun", "politics", "a computer", "medicine", "paper", "quantum computing",
];

/// Opening instructions as chat clients send them; what they say must not change the answers.
pub const SYSTEM_MESSAGES: &[&str] = &[
    "You are a helpful assistant.",
    "You are a helpful assistant",
    "You are a helpful, honest and concise assistant.",
    "You are ChatGPT.",
    "Answer briefly.",
    "Be brief.",
    "Be concise and polite.",
    "Answer in one sentence.",
    "You answer questions.",
    "You are tether-tiny.",
    "Use plain text. Do not use markdown.",
    "You are an expert in geography and mathematics. Answer the question of the user.",
];
