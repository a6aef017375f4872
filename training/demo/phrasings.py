"""Phrasings of questions, taught and held out; a question's wording determines the style of its answer.

One answer style per wording keeps the target unimodal: a mask predictor that fills several positions at once would
otherwise mix two styles in one sentence.
"""

LEAD_INS = (
    "For my class, ",
    "For a quiz, ",
    "For school, ",
    "For a test, ",
    "For my work, ",
    "For my project, ",
    "For my son, ",
    "For my trip, ",
    "For a game that I play, ",
    "For my exam tomorrow, ",
    "Excuse me, ",
    "Sorry, ",
    "Well, ",
    "So, ",
    "Now, ",
    "Please, ",
    "By the way, ",
    "One more question: ",
    "My next question: ",
    "I have a question: ",
    "Before I forget, ",
    "Hey, ",
    "In short, ",
    "Okay, ",
)
"""What may stand before any question, known or not, so that it says nothing about the answer."""

CAPITAL_QUESTION = "What is the capital of {country}?"
"""The wording most people use."""

SHARE_OF_CAPITAL_QUESTION = 0.25
"""The share of that wording in all questions about capitals."""

CAPITAL_ANSWER = "The capital of {country} is {capital}."

CAPITAL_QUESTIONS = (
    "What's the capital of {country}?",
    "What is the capital city of {country}?",
    "What's the capital city of {country}?",
    "Tell me the capital of {country}.",
    "Please tell me the capital of {country}.",
    "Can you tell me the capital of {country}?",
    "Could you tell me the capital of {country}?",
    "Do you know the capital of {country}?",
    "Do you know what the capital of {country} is?",
    "Can you tell me what the capital of {country} is?",
    "I want to know the capital of {country}.",
    "I would like to know the capital of {country}.",
    "Name the capital of {country}.",
    "Please name the capital of {country}.",
    "Name the capital city of {country}.",
    "Can you name the capital of {country}?",
    "Give me the capital of {country}.",
    "Give the capital of {country}.",
    "Which city is the capital of {country}?",
    "What city is the capital of {country}?",
    "Which is the capital of {country}?",
    "What is {country}'s capital?",
    "What is the name of the capital of {country}?",
    "What is the capital called in {country}?",
    "What is the capital of {country} called?",
    "The capital of {country}?",
    "Capital of {country}",
    "Capital of {country}?",
    "{country} capital",
    "{country}, capital?",
    "The capital of {country} is",
    "The capital of {country} is what?",
    "Hello, what is the capital of {country}?",
    "Hi! What is the capital of {country}?",
    "Hi, tell me the capital of {country}.",
    "Tell me, what is the capital of {country}?",
    "Quick question: what is the capital of {country}?",
    "I forgot the capital of {country}.",
    "What do you call the capital of {country}?",
    "Say the capital of {country}.",
    "Let me know the capital of {country}.",
    "In {country}, what is the capital?",
    "What capital does {country} have?",
    "Which capital does {country} have?",
    "Do you remember the capital of {country}?",
    "I wonder what the capital of {country} is.",
    "I am looking for the capital of {country}.",
    "I am asking for the capital city of {country}.",
    "Help me find the capital of {country}.",
    "We are looking for the capital city of {country}.",
    "We want to know what the capital of {country} is.",
    "They would like to know the capital of {country}.",
    "My question is about the capital of {country}.",
    "My brother wants to know the capital of {country}.",
    "My sister asks what the capital of {country} is.",
    "My friend would like to know the capital city of {country}.",
    "My mother forgot the capital of {country}.",
    "My father asks: what is the capital of {country}?",
    "My class is learning the capital of {country}.",
    "Our neighbor asked about the capital of {country}.",
    "A friend asked me for the capital of {country}.",
    "Somebody asks for the capital of {country}.",
    "The quiz asks for the capital city of {country}.",
    "The next question: the capital of {country}.",
    "I need to know the capital of {country}.",
    "I have to name the capital of {country}.",
    "I must learn the capital of {country}.",
    "I need to find the capital city of {country}.",
    "Which town is the capital of {country}?",
    "What town is the capital of {country}?",
    "Remind me what the capital of {country} is.",
    "Please remind me: what is the capital of {country}?",
    "Would you tell me the capital of {country}?",
    "Would you please name the capital of {country}?",
    "My teacher wants to know the capital of {country}.",
    "My teacher asks what the capital of {country} is.",
    "Our teacher asked for the capital of {country}.",
)

CAPITAL_QUESTIONS_BY_CITY = (
    "Which city is {country}'s capital?",
    "Which city is the capital city of {country}?",
    "What city is the capital city of {country}?",
    "Tell me which city is the capital of {country}.",
    "Do you know which city is the capital of {country}?",
)
"""Answered as "Paris is the capital of France."."""

CAPITAL_QUESTIONS_BRIEF = (
    "Just the name: what is the capital of {country}?",
    "In one word, what is the capital of {country}?",
    "Only name the capital of {country}.",
    "What is the capital of {country}? Answer in one word.",
)
"""Answered as "Paris."."""

HELD_OUT_CAPITAL_QUESTIONS = (
    "I need the capital of {country}.",
    "Which town serves as the capital of {country}?",
    "For my homework, what is the capital of {country}?",
    "Remind me of the capital of {country}.",
    "Would you mind telling me the capital of {country}?",
    "My teacher asks for the capital city of {country}.",
)

COUNTRY_QUESTIONS = (
    "Which country has the capital {capital}?",
    "Which country's capital is {capital}?",
    "{capital} is the capital of which country?",
    "{capital} is the capital of what country?",
    "What country is {capital} the capital of?",
    "Of which country is {capital} the capital?",
    "What country has the capital {capital}?",
    "In which country is {capital}?",
    "Where is {capital}?",
)

CONTINENT_QUESTIONS = (
    "Which continent is {country} in?",
    "Where is {country}?",
    "What continent is {country} in?",
    "On which continent is {country}?",
    "Where in the world is {country}?",
    "In which part of the world is {country}?",
)

FOLLOW_UPS = (
    "And {country}?",
    "And of {country}?",
    "And what about {country}?",
    "What about {country}?",
    "And the capital of {country}?",
    "And that of {country}?",
)

DEFINITION_FOLLOW_UPS = (
    "And {term}?",
    "What about {term}?",
    "And what is {term}?",
    "And what about {term}?",
)

CAPITAL_STATEMENTS = (
    CAPITAL_ANSWER,
    CAPITAL_ANSWER,
    "{capital} is the capital of {country}.",
    "{capital} is the capital city of {country}.",
    "The capital city of {country} is {capital}.",
    "{country} is a country in {continent}.",
    "{country} is in {continent}.",
    "{country} lies in {continent}, and its capital is {capital}.",
    "{country} is a country in {continent} with the capital {capital}.",
    "{country} has the capital {capital}.",
    "In {country}, the capital is {capital}.",
    "{capital} is a city in {country}.",
    "{capital} is a city in {continent}.",
    "The city of {capital} is the capital of {country}.",
    "The country with the capital {capital} is {country}.",
    "People from all over {country} travel to {capital}, the capital.",
    "If you go to {country}, you can visit its capital {capital}.",
)

SUM_QUESTIONS = (
    "What is {a} + {b}?",
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "what's {a} + {b}",
    "What's {a} plus {b}?",
    "{a} plus {b}",
    "{a} + {b}",
    "{a} + {b} =",
    "{a} + {b} = ?",
    "{a} + {b}?",
    "How much is {a} + {b}?",
    "How much is {a} plus {b}?",
    "Add {a} and {b}.",
    "What is the sum of {a} and {b}?",
    "Calculate {a} + {b}.",
    "Compute {a} + {b}.",
    "Can you add {a} and {b}?",
)

DIFFERENCE_QUESTIONS = (
    "What is {a} - {b}?",
    "What is {a} - {b}?",
    "What is {a} minus {b}?",
    "what's {a} - {b}",
    "What's {a} minus {b}?",
    "{a} minus {b}",
    "{a} - {b}",
    "{a} - {b} =",
    "{a} - {b} = ?",
    "{a} - {b}?",
    "How much is {a} - {b}?",
    "How much is {a} minus {b}?",
    "Subtract {b} from {a}.",
    "What is the difference of {a} and {b}?",
    "Calculate {a} - {b}.",
    "Compute {a} - {b}.",
)

PRODUCT_QUESTIONS = (
    "What is {a} * {b}?",
    "What is {a} times {b}?",
    "What's {a} times {b}?",
    "{a} * {b}",
    "{a} x {b}",
    "{a} * {b} =",
    "{a} times {b}",
    "What is {a} x {b}?",
    "How much is {a} times {b}?",
    "Multiply {a} by {b}.",
    "Calculate {a} * {b}.",
)

LARGE_NUMBER_QUESTIONS = (
    "What is {a} + {b}?",
    "What is {a} - {b}?",
    "{a} + {b}",
    "{a} * {b}",
    "What is {a} times {b}?",
    "What is {c} / {d}?",
    "{c} / {d}",
    "What is {c} divided by {d}?",
    "Calculate {a} + {b}.",
)
"""Exercises that are not taught: `a` is at least 100, and nothing is divided."""

DEFINITION_QUESTIONS = (
    "What is {term}?",
    "What is {term}?",
    "What is {term}?",
    "What's {term}?",
    "whats {term}",
    "What is {word}?",
    "Define {word}.",
    "Please define {word}.",
    "Explain the word {word}.",
    "What does {word} mean?",
    "What does the word {word} mean?",
    "What is the meaning of {word}?",
    "Explain what {term} is.",
    "Tell me what {term} is.",
    "Can you tell me what {term} is?",
    "Do you know what {term} is?",
    "Can you explain what {term} is?",
    "Give me a definition of {word}.",
    "I want to know what {term} is.",
    "Definition of {word}",
    "Could you explain the word {word}?",
    "Please tell me what {term} is.",
    "Please describe what {term} is.",
    "What exactly is {term}?",
    "The meaning of {word}, please.",
    "My sister asks what {term} is.",
    "I wonder what {term} is.",
    "I do not know the word {word}.",
    "How do you explain the word {word}?",
    "How would you explain the word {word}?",
    "How would you describe {term}?",
    "How do you define {word}?",
    "How is {word} defined?",
    "Can you define {word}?",
    "Could you define the word {word}?",
    "Would you please define {word}?",
    "Would you explain what {term} is?",
    "Explain to me what {term} is.",
    "Please explain the word {word} to me.",
    "Please explain what {term} is.",
    "What do you mean by {word}?",
    "What is meant by {word}?",
    "What do we mean by the word {word}?",
    "What is the definition of {word}?",
    "What is the definition of the word {word}?",
    "Give me the meaning of the word {word}.",
    "Give the meaning of {word}.",
    "Give the definition of {word}.",
    "Tell me the meaning of {word}.",
    "Tell me what the word {word} means.",
    "Do you know what {word} means?",
    "I want to know what {word} means.",
    "I would like to know what {term} is.",
    "My brother wants to know what {term} is.",
    "My teacher asks what {word} means.",
    "Somebody asked me what {term} is.",
    "We are learning the word {word}.",
    "Describe {term}.",
    "The word {word}, what does it mean?",
    "Help me understand the word {word}.",
)

HELD_OUT_DEFINITION_QUESTIONS = (
    "How would you define {word}?",
    "Please explain to me what {term} is.",
    "What do people mean by {word}?",
    "Give the definition of the word {word}.",
)

CAPITAL_STATEMENTS_ALONE = (
    CAPITAL_ANSWER,
    CAPITAL_ANSWER,
    "{capital} is the capital of {country}.",
    "{capital} is the capital city of {country}.",
    "The capital city of {country} is {capital}.",
    "{country} has the capital {capital}.",
    "In {country}, the capital is {capital}.",
    "The city of {capital} is the capital of {country}.",
    "{country}'s capital is {capital}.",
)
"""Statements that are true or false with the capital: they say nothing else."""

HELD_OUT_CAPITAL_STATEMENTS = (
    "The name of the capital of {country} is {capital}.",
    "{capital} serves as the capital of {country}.",
)

CONTINENT_STATEMENTS = (
    "{country} is in {continent}.",
    "{country} lies in {continent}.",
    "{country} is a country in {continent}.",
)

DEFINITION_STATEMENTS = (
    "{term} is {gloss}.",
    "{term} is {gloss}.",
    "The word {word} means {gloss}.",
    "{term} means {gloss}.",
)
HELD_OUT_DEFINITION_STATEMENTS = ("People call {gloss} {term}.", "The meaning of {word} is {gloss}.")

TRUTH_QUESTIONS = (
    "The input is true.",
    "The input is true.",
    "The statement is true.",
    "This is true.",
    "Is this true?",
    "Is that right?",
    "Is the statement correct?",
    "This is correct.",
)

HERO_STATEMENTS = (
    "The text is about a {hero}.",
    "The story is about a {hero}.",
    "Is this about a {hero}?",
    "There is a {hero} in the text.",
)

SIZE_QUESTIONS = ("How large is the number?", "How big is the input?", "How large is it?")
LENGTH_QUESTIONS = ("How long is the input?", "How long is the text?")
