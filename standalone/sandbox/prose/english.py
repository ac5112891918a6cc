"""English sentences. Each stands alone, so that any choice of one per pool reads as a text."""

from collections.abc import Mapping

from standalone.sandbox.prose.cues import Kind
from standalone.sandbox.prose.english_horoscope import HOROSCOPE
from standalone.sandbox.prose.grammar import Recipe

_TAROT = Recipe(
    paragraphs=(
        (
            (
                "The cards speak clearly today.",
                "Take a slow breath and look at the spread with me.",
                "This is a {mood} spread, and it answers more than you asked.",
                "There is a {mood} thread running through these cards.",
            ),
            (
                "In the first place lies {card1}, which speaks of {theme}.",
                "{card1} opens the reading and points back to {theme}.",
                "Your past is held by {card1}, a sign of {theme}.",
            ),
            (
                "At the centre stands {card2}; for now it asks you for {virtue}.",
                "The present belongs to {card2}, and with it comes a call for {virtue}.",
                "{card2} describes where you are today: a place that rewards {virtue}.",
            ),
            (
                "{card3} closes the row and promises {theme}, if you allow it.",
                "What comes next is coloured by {card3}, and that means {theme}.",
                "The last card is {card3}, which turns the story towards {theme}.",
            ),
        ),
        (
            (
                "Read together, they say that nothing here is lost, only delayed.",
                "Together they describe a crossing rather than an ending.",
                "As a whole, the spread favours a decision made calmly over one made quickly.",
                "Seen as one picture, they ask you to trust what you already know.",
            ),
            (
                "Choose one small act of {virtue} this week and watch what it changes.",
                "Over the next {days} days, notice where {virtue} comes easily to you.",
                "Put aside {days} quiet minutes tonight and write down what you truly want.",
            ),
            (
                "The cards show a direction; the steps are yours.",
                "Nothing in a spread is fixed, and the choice stays with you.",
                "Take from it what helps you, and leave the rest on the table.",
            ),
        ),
    ),
    words={
        "mood": ("hopeful", "serious", "generous", "restless", "tender", "powerful"),
        "card1": ("The Star", "The Hermit", "Six of Cups", "The Empress", "Two of Swords"),
        "card2": ("Temperance", "The Chariot", "Three of Pentacles", "Justice", "The Magician"),
        "card3": ("The Sun", "The World", "Ace of Wands", "Wheel of Fortune", "Ten of Cups"),
        "theme": (
            "renewal",
            "a bond that lasts",
            "hard-won wisdom",
            "a new beginning",
            "healing",
            "long-sought clarity",
        ),
        "virtue": ("patience", "courage", "honesty", "balance", "generosity", "self-respect"),
        "days": ("three", "five", "seven", "nine", "ten"),
    },
)

_CV = Recipe(
    paragraphs=(
        (("{role}",),),
        (
            ("Profile:",),
            (
                "{quality} {role} with {years} years of experience in {field}.",
                "{role} with a {years}-year record in {field}, known for being {trait}.",
                "{quality} professional with {years} years in {field}, now looking for a role as {role}.",
            ),
            (
                "Combines careful planning with a feeling for what customers need.",
                "Turns vague requests into plans that teams can follow.",
                "Writes clearly, listens first, and delivers on the agreed date.",
            ),
        ),
        (
            ("Experience:",),
            (
                "Led a team of {team} and cut delivery time by {percent} %.",
                "Introduced a new process for {field} that saved {percent} % of the yearly budget.",
                "Built up {field} from nothing to a group of {team} people.",
            ),
            (
                "Trained {team} new colleagues and wrote the handbook they still use.",
                "Won back {team} lost clients within one year.",
                "Raised customer satisfaction by {percent} % through better follow-up.",
            ),
        ),
        (
            ("Skills:",),
            ("{field}, {tool}, {tool2}, clear writing.", "{tool}, {tool2}, {field}, team leadership."),
            (
                "Languages: English (fluent), Arabic (working knowledge).",
                "Languages: English (native), French (good).",
            ),
        ),
    ),
    words={
        "role": ("Project Coordinator", "Data Analyst", "Software Engineer", "Customer Success Manager"),
        "trait": ("reliable", "inventive", "thorough", "resourceful", "attentive"),
        "quality": ("Reliable", "Inventive", "Thorough", "Resourceful", "Attentive"),
        "years": ("four", "five", "six", "seven", "nine", "ten"),
        "field": ("logistics", "product development", "data analysis", "customer care", "operations"),
        "team": ("four", "five", "six", "eight", "nine", "twelve"),
        "percent": ("12", "15", "18", "22", "27", "30"),
        "tool": ("SQL", "Python", "project planning", "reporting", "process design"),
        "tool2": (
            "negotiation",
            "spreadsheet modelling",
            "stakeholder management",
            "presentation",
            "quality control",
        ),
    },
)

_COVER_LETTER = Recipe(
    paragraphs=(
        (("Dear Hiring Team,", "Dear Sir or Madam,", "Dear Hiring Manager,"),),
        (
            (
                "I am writing to apply for the position of {role}.",
                "Your opening for the position of {role} caught my attention at once.",
                "With great interest I read that you want to fill the position of {role}.",
            ),
            (
                "For {years} years I have worked in {field}, and I enjoy it more with every project.",
                "My background in {field} spans {years} years and several industries.",
                "Over the past {years} years I have learned {field} from the ground up.",
            ),
        ),
        (
            (
                "In my current role I led a project that reduced costs by {percent} %.",
                "Most recently I helped a team of {team} deliver a difficult project two weeks early.",
                "My proudest result is a new routine that saved my team {percent} % of its time.",
            ),
            (
                "What I would bring to you is {quality}, together with a calm manner under pressure.",
                "Colleagues value my {quality} and my habit of finishing what I start.",
                "I combine {quality} with a real curiosity about how others work.",
            ),
            (
                "Your company appeals to me because you take quality seriously.",
                "I admire the care that shows in everything you publish.",
                "I am convinced that your way of working suits me well.",
            ),
        ),
        (
            (
                "I would be glad to tell you more in a conversation.",
                "I look forward to the chance to meet you in person.",
                "May I introduce myself in a short interview?",
            ),
            ("Yours faithfully,", "Kind regards,", "Sincerely,"),
        ),
    ),
    words={
        "role": ("Project Coordinator", "Data Analyst", "Software Engineer", "Customer Success Manager"),
        "years": ("four", "five", "six", "seven", "eight"),
        "field": ("logistics", "product development", "data analysis", "customer care", "operations"),
        "percent": ("12", "15", "18", "22", "27"),
        "team": ("five", "six", "eight", "nine"),
        "quality": ("precision", "patience", "initiative", "reliability", "good judgement"),
    },
)

_ANALYTICS = Recipe(
    paragraphs=(
        (
            (
                "Summary of the period: {figures}.",
                "The figures at a glance: {figures}.",
                "Reported values: {figures}.",
            ),
            (
                "Overall the trend is {trend}, with no sign of a sudden break.",
                "The direction is {trend}, although single days vary.",
                "Compared with the weeks before, the picture is {trend}.",
            ),
        ),
        (
            (
                "1. The largest contribution comes from {segment}, about {percent} % of the total.",
                "1. Roughly {percent} % of the movement comes from {segment}.",
            ),
            (
                "2. The group of {segment} grew faster than the average and deserves attention.",
                "2. Activity peaks {moment}, which is when capacity matters most.",
            ),
            (
                "3. One value looks unusual and should be checked at its source before it is reported.",
                "3. The spread between the best and the weakest day has narrowed by {percent} %.",
            ),
        ),
        (
            (
                "Recommendation: shift some of the budget towards {segment} and measure again in two weeks.",
                "Recommendation: test one change at a time, starting with {segment}.",
                "Recommendation: keep the present course and set an alert at {percent} % deviation.",
            ),
        ),
    ),
    words={
        "figures": ("no single number stands out", "all indicators are within their usual range"),
        "trend": ("stable", "slightly positive", "upward", "mixed but healthy", "a little weaker"),
        "segment": (
            "returning customers",
            "mobile users",
            "new sign-ups",
            "evening visitors",
            "long-term subscribers",
        ),
        "percent": ("8", "11", "14", "19", "23", "31", "38", "42"),
        "moment": ("on Sunday evenings", "before noon", "at the end of the month", "on weekdays after six"),
    },
)

_EMERGENCY = Recipe(
    paragraphs=(
        (
            (
                "If anyone is in danger, call your local emergency number now.",
                "Call the emergency services first.",
            ),
            ("Stay calm, and move to a safe place if you can.", "Keep yourself safe before you help others."),
            ("You wrote: “{topic}”.", "About “{topic}”:"),
            (
                "Tell the operator where you are, what happened, and how many people need help.",
                "Give your exact address, the kind of emergency, and a number to call back.",
            ),
            (
                "Do not move an injured person unless the place itself is dangerous.",
                "Keep the person warm, speak to them, and watch their breathing.",
            ),
            ("Stay on the line until help arrives.", "Do not hang up before the operator tells you to."),
        ),
    ),
    words={},
)

_PICTURE = Recipe(
    paragraphs=(
        (
            ("The picture is clear and evenly lit.", "The image is sharp, with {tone} colours."),
            (
                "The main subject stands in the {part} of the frame.",
                "Attention goes to the {part} of the picture.",
            ),
            (
                "Nothing in it looks edited.",
                "There are no visible signs of manipulation.",
                "The edges look natural.",
            ),
            (
                "It is suitable for the purpose you describe: “{topic}”.",
                "With regard to “{topic}”, the picture meets the usual requirements.",
            ),
            ("A slightly closer crop would help.", "A plainer background would make it even better."),
        ),
    ),
    words={
        "tone": ("warm", "cool", "muted", "vivid"),
        "part": ("centre", "left half", "right half", "foreground"),
    },
)

_CHAT = Recipe(
    paragraphs=(
        (
            (
                "Good question.",
                "Thank you for asking.",
                "Happy to help with that.",
                "Let us look at it step by step.",
                "That is a {nice} topic.",
            ),
            (
                "You ask about “{topic}”.",
                "As I understand it, this is about “{topic}”.",
                "So the matter is “{topic}”.",
            ),
            (
                "The short answer is that it depends on {factor} more than on anything else.",
                "In most cases {factor} decides the outcome.",
                "A sensible starting point is {factor}.",
                "Experience shows that {factor} matters first.",
            ),
            (
                "Begin with a small version, look at the result, and improve it from there.",
                "Write down what you already know; the gap that remains is usually smaller than it seems.",
                "Compare two options honestly before you settle on one.",
                "Give it a fixed amount of time, then decide with what you have learned.",
            ),
            (
                "It also helps to speak with {someone} who has done it before.",
                "Ask {someone} for a second opinion, because fresh eyes see more.",
                "Keep {someone} informed, so that nobody is surprised later.",
            ),
            (
                "If you tell me a little more, I can be more precise.",
                "Which part would you like to go into first?",
                "Let me know how it goes.",
                "I am glad to work out the details with you.",
            ),
        ),
    ),
    words={
        "nice": ("fine", "rewarding", "useful", "practical"),
        "factor": (
            "your goal",
            "the time you have",
            "the available budget",
            "a clear plan",
            "good preparation",
        ),
        "someone": ("a friend", "a colleague", "an expert", "somebody you trust"),
    },
)

RECIPES: Mapping[Kind, Recipe] = {
    Kind.HOROSCOPE: HOROSCOPE,
    Kind.TAROT: _TAROT,
    Kind.CV: _CV,
    Kind.COVER_LETTER: _COVER_LETTER,
    Kind.ANALYTICS: _ANALYTICS,
    Kind.EMERGENCY: _EMERGENCY,
    Kind.PICTURE: _PICTURE,
    Kind.CHAT: _CHAT,
}
