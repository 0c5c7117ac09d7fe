//! The words of the sample world: people, towns, trades and things, with related words.

/// The words of a trade, which occur together in documents about it.
#[derive(Debug)]
pub(super) struct Trade {
    /// "baker".
    pub job: &'static str,
    /// The workplace: "bakery".
    pub place: &'static str,
    /// The product, plural.
    pub goods: &'static [&'static str],
    /// The tool, singular.
    pub tools: &'static [&'static str],
    /// The material.
    pub material: &'static str,
    /// Verb phrases: base form (regular in the third person) and past tense.
    pub acts: &'static [(&'static str, &'static str)],
    /// A trouble (a clause in the past tense) and the remedy that belongs to it (a verb phrase in the past tense).
    pub troubles: &'static [(&'static str, &'static str)],
}

pub(super) const FEMALE_NAMES: &[&str] = &[
    "Anna", "Maria", "Clara", "Emma", "Ruth", "Helen", "Alice", "Nora", "Julia", "Rosa", "Edith", "Martha", "Sophie",
    "Laura", "Irene", "Grace", "Ellen", "Lucy", "Sarah", "Hannah", "Eva", "Paula", "Judith", "Vera", "Agnes", "Flora",
    "Ida", "Jane", "Kate", "Lena", "Mary", "Olga", "Susan", "Tessa", "Ursula", "Wanda", "Yasmin", "Zoe", "Amina",
    "Beatrice",
];

pub(super) const MALE_NAMES: &[&str] = &[
    "Peter", "John", "Thomas", "Henry", "Paul", "David", "Simon", "Martin", "George", "Oscar", "Felix", "Hugo",
    "Walter", "Robert", "James", "Arthur", "Daniel", "Victor", "Edward", "Samuel", "Adam", "Bruno", "Carl", "Dennis",
    "Eric", "Frank", "Gustav", "Harold", "Ivan", "Jacob", "Karim", "Leo", "Max", "Nathan", "Otto", "Philip", "Ralph",
    "Stephen", "Tom", "William",
];

pub(super) const SURNAMES: &[&str] = &[
    "Ward",
    "Baker",
    "Holt",
    "Marsh",
    "Reed",
    "Carter",
    "Flint",
    "Barlow",
    "Crane",
    "Dale",
    "Ellis",
    "Fisher",
    "Grant",
    "Hale",
    "Irving",
    "Jensen",
    "Keller",
    "Lowe",
    "Morgan",
    "Nash",
    "Osborn",
    "Palmer",
    "Quinn",
    "Rowe",
    "Stone",
    "Turner",
    "Underhill",
    "Vance",
    "Webb",
    "Young",
    "Abbott",
    "Bishop",
    "Conrad",
    "Doyle",
    "Finch",
    "Garner",
    "Hobbs",
    "Kerr",
    "Lang",
    "Moss",
];

pub(super) const TOWNS: &[&str] = &[
    "Alderton",
    "Bramford",
    "Castlebay",
    "Dunmore",
    "Eastwick",
    "Fairhaven",
    "Greenfield",
    "Harwell",
    "Ironbridge",
    "Kingsley",
    "Lakeside",
    "Millbrook",
    "Northgate",
    "Oakham",
    "Pinecrest",
    "Queensport",
    "Redcliff",
    "Stonebury",
    "Thornhill",
    "Upton",
    "Valemont",
    "Westbrook",
    "Yarrow",
    "Ashdown",
    "Birchwood",
    "Coldwater",
    "Deepwell",
    "Elmstead",
    "Foxley",
    "Graywater",
    "Highmoor",
    "Ivybridge",
    "Longford",
    "Marlow",
    "Newhaven",
    "Overton",
    "Portside",
    "Ridgeway",
    "Saltmarsh",
    "Whitby",
];

pub(super) const RIVERS: &[&str] = &[
    "Avel", "Brand", "Cole", "Dern", "Esk", "Fleet", "Garn", "Holme", "Isle", "Kent", "Lark", "Mole", "Nene", "Orrin",
    "Perry", "Rother", "Severn", "Tarn", "Wye", "Yare",
];

pub(super) const REGIONS: &[&str] = &[
    "the northern hills",
    "the lake country",
    "the eastern plains",
    "the southern marshes",
    "the western valleys",
    "the high moors",
    "the river delta",
    "the old forest",
    "the island province",
    "the wine country",
];

pub(super) const LANDMARKS: &[&str] = &[
    "the old bridge",
    "the white tower",
    "the stone mill",
    "the town clock",
    "the castle",
    "the harbour",
    "the cathedral",
    "the glass hall",
    "the city wall",
    "the lighthouse",
    "the market square",
    "the botanical garden",
    "the railway museum",
    "the round church",
    "the opera house",
    "the fountain",
    "the long pier",
    "the observatory",
    "the old library",
    "the covered market",
];

pub(super) const TRADES: &[Trade] = &[
    Trade {
        job: "baker",
        place: "bakery",
        goods: &["loaves", "rolls", "pies"],
        tools: &["oven", "rolling pin", "wooden board"],
        material: "flour",
        acts: &[
            ("knead the dough", "kneaded the dough"),
            ("light the oven before dawn", "lit the oven before dawn"),
            ("weigh the flour", "weighed the flour"),
            ("slice the warm bread", "sliced the warm bread"),
        ],
        troubles: &[
            ("the oven went cold in the night", "cleaned the chimney and lit the fire again"),
            ("the dough did not rise", "bought fresh yeast and began anew"),
        ],
    },
    Trade {
        job: "carpenter",
        place: "workshop",
        goods: &["chairs", "tables", "window frames"],
        tools: &["saw", "hammer", "plane"],
        material: "oak",
        acts: &[
            ("measure the planks", "measured the planks"),
            ("saw the boards", "sawed the boards"),
            ("smooth the edges", "smoothed the edges"),
            ("nail the frame together", "nailed the frame together"),
        ],
        troubles: &[
            ("the wood split along the grain", "glued the wood and clamped it overnight"),
            ("the legs of the table were uneven", "cut all the legs to the same length"),
        ],
    },
    Trade {
        job: "nurse",
        place: "hospital",
        goods: &["bandages", "medicines", "clean sheets"],
        tools: &["thermometer", "syringe", "night lamp"],
        material: "cotton",
        acts: &[
            ("visit the patients", "visited the patients"),
            ("change the bandages", "changed the bandages"),
            ("measure the fever", "measured the fever"),
            ("comfort the sick children", "comforted the sick children"),
        ],
        troubles: &[
            ("a patient had a high fever", "called the doctor and cooled the patient with wet cloths"),
            ("the medicine ran out", "sent a rider to the next hospital for more medicine"),
        ],
    },
    Trade {
        job: "fisher",
        place: "harbour",
        goods: &["herrings", "crabs", "mackerels"],
        tools: &["net", "rowing boat", "hook"],
        material: "rope",
        acts: &[
            ("mend the nets", "mended the nets"),
            ("row out to sea", "rowed out to sea"),
            ("sort the catch", "sorted the catch"),
            ("scrub the deck", "scrubbed the deck"),
        ],
        troubles: &[
            ("the net tore on the rocks", "knotted the net with new rope"),
            ("the boat began to leak", "sealed the leak with tar"),
        ],
    },
    Trade {
        job: "farmer",
        place: "farm",
        goods: &["potatoes", "turnips", "eggs"],
        tools: &["plough", "tractor", "pitchfork"],
        material: "straw",
        acts: &[
            ("milk the cows", "milked the cows"),
            ("plough the field", "ploughed the field"),
            ("feed the hens", "fed the hens"),
            ("harvest the wheat", "harvested the wheat"),
        ],
        troubles: &[
            ("the cows broke through the fence", "led the cows home and mended the fence"),
            ("the tractor sank into the mud", "pulled the tractor out with two horses"),
        ],
    },
    Trade {
        job: "clockmaker",
        place: "clock shop",
        goods: &["watches", "alarm clocks", "pendulums"],
        tools: &["magnifying glass", "tiny screwdriver", "pair of tweezers"],
        material: "brass",
        acts: &[
            ("wind the clocks", "wound the clocks"),
            ("oil the gears", "oiled the gears"),
            ("replace the springs", "replaced the springs"),
            ("polish the brass wheels", "polished the brass wheels"),
        ],
        troubles: &[
            ("the big clock stopped at noon", "found a broken spring and replaced it"),
            ("one of the watches ran too fast", "adjusted the balance wheel until the time was right"),
        ],
    },
    Trade {
        job: "gardener",
        place: "nursery",
        goods: &["seedlings", "roses", "lettuces"],
        tools: &["spade", "watering can", "rake"],
        material: "compost",
        acts: &[
            ("water the beds", "watered the beds"),
            ("prune the roses", "pruned the roses"),
            ("rake the leaves", "raked the leaves"),
            ("plant the bulbs", "planted the bulbs"),
        ],
        troubles: &[
            ("snails ate the young lettuces", "set a ring of ash around the beds"),
            ("the frost killed the seedlings", "covered the beds with straw and sowed again"),
        ],
    },
    Trade {
        job: "librarian",
        place: "library",
        goods: &["novels", "atlases", "old maps"],
        tools: &["card index", "ladder", "reading lamp"],
        material: "paper",
        acts: &[
            ("shelve the books", "shelved the books"),
            ("read stories to the children", "read stories to the children"),
            ("dust the shelves", "dusted the shelves"),
            ("stamp the cards", "stamped the cards"),
        ],
        troubles: &[
            ("a rare book was missing", "looked behind the shelves and found the book there"),
            ("water dripped through the ceiling onto the shelves", "moved the books and dried the pages one by one"),
        ],
    },
    Trade {
        job: "tailor",
        place: "tailor shop",
        goods: &["coats", "dresses", "shirts"],
        tools: &["needle", "sewing machine", "pair of scissors"],
        material: "wool",
        acts: &[
            ("sew the buttons", "sewed the buttons"),
            ("cut the cloth", "cut the cloth"),
            ("press the trousers", "pressed the trousers"),
            ("measure the sleeves", "measured the sleeves"),
        ],
        troubles: &[
            ("the sleeves were too short", "added a cuff to each sleeve"),
            ("the sewing machine broke", "finished the seams by hand"),
        ],
    },
    Trade {
        job: "mechanic",
        place: "garage",
        goods: &["engines", "brakes", "spare wheels"],
        tools: &["wrench", "jack", "oil can"],
        material: "steel",
        acts: &[
            ("test the brakes", "tested the brakes"),
            ("change the tyres", "changed the tyres"),
            ("clean the engine", "cleaned the engine"),
            ("tighten the bolts", "tightened the bolts"),
        ],
        troubles: &[
            ("the engine would not start", "cleaned the spark plugs and charged the battery"),
            ("oil leaked onto the floor", "tightened a loose bolt under the engine"),
        ],
    },
    Trade {
        job: "painter",
        place: "studio",
        goods: &["portraits", "landscapes", "sketches"],
        tools: &["brush", "easel", "palette"],
        material: "canvas",
        acts: &[
            ("mix the colours", "mixed the colours"),
            ("sketch the outline", "sketched the outline"),
            ("stretch the canvas", "stretched the canvas"),
            ("varnish the picture", "varnished the picture"),
        ],
        troubles: &[
            ("the blue paint dried in the tube", "ground new blue paint from a stone"),
            ("the portrait did not look like the model", "scraped off the paint and drew the face again"),
        ],
    },
    Trade {
        job: "blacksmith",
        place: "forge",
        goods: &["horseshoes", "gates", "hinges"],
        tools: &["anvil", "pair of tongs", "bellows"],
        material: "iron",
        acts: &[
            ("hammer the iron", "hammered the iron"),
            ("heat the coals", "heated the coals"),
            ("shoe the horses", "shod the horses"),
            ("sharpen the ploughs", "sharpened the ploughs"),
        ],
        troubles: &[
            ("the fire in the forge died", "pumped the bellows until the coals glowed"),
            ("a horse would not stand still", "calmed the horse with an apple"),
        ],
    },
    Trade {
        job: "beekeeper",
        place: "orchard",
        goods: &["jars of honey", "candles", "honey cakes"],
        tools: &["smoker", "veil", "wooden hive"],
        material: "wax",
        acts: &[
            ("open the hives", "opened the hives"),
            ("collect the honey", "collected the honey"),
            ("count the bees", "counted the bees"),
            ("melt the wax", "melted the wax"),
        ],
        troubles: &[
            ("a swarm left the hive", "caught the swarm in a basket"),
            ("a bear broke one of the hives", "built a high fence around the hives"),
        ],
    },
    Trade {
        job: "potter",
        place: "pottery",
        goods: &["bowls", "jugs", "cups"],
        tools: &["potter's wheel", "kiln", "sponge"],
        material: "clay",
        acts: &[
            ("shape the clay", "shaped the clay"),
            ("fire the kiln", "fired the kiln"),
            ("glaze the bowls", "glazed the bowls"),
            ("turn the wheel", "turned the wheel"),
        ],
        troubles: &[
            ("the jugs cracked in the kiln", "let the clay dry longer before the next firing"),
            ("the glaze came out too dark", "mixed a lighter glaze with more sand"),
        ],
    },
    Trade {
        job: "cook",
        place: "kitchen",
        goods: &["soups", "stews", "puddings"],
        tools: &["copper pot", "sharp knife", "wooden spoon"],
        material: "butter",
        acts: &[
            ("chop the onions", "chopped the onions"),
            ("stir the soup", "stirred the soup"),
            ("taste the sauce", "tasted the sauce"),
            ("roast the meat", "roasted the meat"),
        ],
        troubles: &[
            ("the soup was far too salty", "added potatoes to take away the salt"),
            ("the meat burned", "cut off the black crust and made a stew"),
        ],
    },
    Trade {
        job: "printer",
        place: "printing house",
        goods: &["newspapers", "posters", "calendars"],
        tools: &["printing press", "ink roller", "case of type"],
        material: "ink",
        acts: &[
            ("set the type", "set the type"),
            ("fold the pages", "folded the pages"),
            ("ink the rollers", "inked the rollers"),
            ("bind the books", "bound the books"),
        ],
        troubles: &[
            ("the press jammed in the middle of the night", "took the rollers apart and cleaned them"),
            ("a headline was spelled wrong", "printed the first page again"),
        ],
    },
    Trade {
        job: "vet",
        place: "clinic",
        goods: &["pills", "ointments", "small bandages"],
        tools: &["stethoscope", "pair of clippers", "weighing scale"],
        material: "gauze",
        acts: &[
            ("examine the dogs", "examined the dogs"),
            ("weigh the lambs", "weighed the lambs"),
            ("bandage the paws", "bandaged the paws"),
            ("listen to the hearts of old horses", "listened to the hearts of old horses"),
        ],
        troubles: &[
            ("a dog had swallowed a button", "gave the dog some oil and waited"),
            ("a calf could not stand", "bandaged the leg and fed the calf by hand"),
        ],
    },
    Trade {
        job: "shoemaker",
        place: "shoe shop",
        goods: &["boots", "sandals", "slippers"],
        tools: &["awl", "last", "leather knife"],
        material: "leather",
        acts: &[
            ("stitch the soles", "stitched the soles"),
            ("cut the leather", "cut the leather"),
            ("polish the boots", "polished the boots"),
            ("repair the heels", "repaired the heels"),
        ],
        troubles: &[
            ("the new boots were too tight", "stretched the leather with steam"),
            ("the soles came off in the rain", "stitched the soles with waxed thread"),
        ],
    },
    Trade {
        job: "photographer",
        place: "darkroom",
        goods: &["photographs", "postcards", "albums"],
        tools: &["camera", "tripod", "flash"],
        material: "film",
        acts: &[
            ("develop the film", "developed the film"),
            ("clean the lens", "cleaned the lens"),
            ("arrange the lights", "arranged the lights"),
            ("frame the pictures", "framed the pictures"),
        ],
        troubles: &[
            ("the pictures came out black", "found a hole in the camera and closed it with tape"),
            ("the bride closed her eyes in every picture", "took one more photograph in the garden"),
        ],
    },
    Trade {
        job: "miller",
        place: "mill",
        goods: &["sacks of flour", "sacks of bran", "bags of oats"],
        tools: &["millstone", "water wheel", "sieve"],
        material: "grain",
        acts: &[
            ("grind the grain", "ground the grain"),
            ("fill the sacks", "filled the sacks"),
            ("grease the axle", "greased the axle"),
            ("sweep the mill floor", "swept the mill floor"),
        ],
        troubles: &[
            ("the stream was too low to turn the wheel", "opened the upper gate and let the water through"),
            ("mice got into the sacks", "borrowed three cats from the neighbours"),
        ],
    },
];

/// Relations of two people of different gender: the second one as a woman and as a man (seen from the first), then the
/// first one as a woman and as a man (seen from the second).
pub(super) const RELATIONS: &[(&str, &str, &str, &str)] = &[
    ("sister", "brother", "sister", "brother"),
    ("daughter", "son", "mother", "father"),
    ("mother", "father", "daughter", "son"),
    ("aunt", "uncle", "niece", "nephew"),
    ("wife", "husband", "wife", "husband"),
    ("cousin", "cousin", "cousin", "cousin"),
    ("neighbour", "neighbour", "neighbour", "neighbour"),
    ("grandmother", "grandfather", "granddaughter", "grandson"),
];

/// The weather (after "the day was"), what the sky did, what one wears.
pub(super) const WEATHER: &[(&str, &str, &str)] = &[
    ("cold and clear", "frost lay on the roofs", "a thick scarf"),
    ("warm and still", "not a cloud was in the sky", "a straw hat"),
    ("wet", "rain fell without a pause", "a long raincoat"),
    ("windy", "the wind shook the trees", "a heavy coat"),
    ("foggy", "a grey fog hid the houses", "a woollen jacket"),
    ("snowy", "snow covered the streets", "high boots"),
    ("hot and dry", "the sun burned on the fields", "a light shirt"),
    ("stormy", "thunder rolled over the hills", "an oilskin cape"),
];

/// Animal, plural, sound (past), food, home.
pub(super) const ANIMALS: &[(&str, &str, &str, &str, &str)] = &[
    ("dog", "dogs", "barked", "bones", "kennel"),
    ("cat", "cats", "purred", "milk", "basket"),
    ("horse", "horses", "neighed", "oats", "stable"),
    ("goat", "goats", "bleated", "thistles", "shed"),
    ("hen", "hens", "clucked", "corn", "coop"),
    ("cow", "cows", "mooed", "hay", "barn"),
    ("donkey", "donkeys", "brayed", "carrots", "yard"),
    ("parrot", "parrots", "screeched", "nuts", "cage"),
    ("duck", "ducks", "quacked", "bread crumbs", "pond"),
    ("pig", "pigs", "grunted", "acorns", "sty"),
    ("pigeon", "pigeons", "cooed", "seeds", "loft"),
    ("sheep dog", "sheep dogs", "growled", "scraps of meat", "hut"),
];

/// Sport, what is played with, where, what is scored (plural).
pub(super) const SPORTS: &[(&str, &str, &str, &str)] = &[
    ("football", "ball", "pitch", "goals"),
    ("hockey", "stick", "rink", "goals"),
    ("tennis", "racket", "court", "sets"),
    ("basketball", "basket", "hall", "points"),
    ("cricket", "bat", "green", "runs"),
    ("handball", "ball", "gym", "goals"),
    ("chess", "queen", "club room", "games"),
    ("rugby", "ball", "meadow", "tries"),
];

/// Vehicle, how one went, where it stops, what broke (clause), how it was repaired (past verb phrase).
pub(super) const TRAVELS: &[(&str, &str, &str, &str, &str)] = &[
    ("train", "went by train", "station", "the engine lost its steam", "filled the boiler with fresh water"),
    ("bus", "took the bus", "bus stop", "a tyre burst on the road", "put on the spare wheel"),
    ("ferry", "crossed by ferry", "landing stage", "the rudder stuck in the weeds", "cut the weeds with a long knife"),
    ("coach", "travelled by coach", "inn", "an axle broke on the stones", "tied the axle with a chain"),
    ("mail van", "went with the mail van", "post office", "a fuse blew with a bang", "put in a new fuse"),
    ("sailing boat", "sailed", "harbour", "the mast cracked in a gust", "bound the mast with rope"),
    ("cart", "rode on a cart", "toll gate", "the horse lost a shoe", "led the horse to the next forge"),
    ("tram", "took the tram", "terminus", "the power failed", "waited for the current to return"),
];

/// School subject, what the lesson was about, the book used.
pub(super) const SUBJECTS: &[(&str, &str, &str)] = &[
    ("history", "the kings of the north", "chronicle"),
    ("geography", "rivers and mountains", "atlas"),
    ("mathematics", "fractions and angles", "exercise book"),
    ("biology", "leaves and roots", "plant guide"),
    ("music", "scales and rhythms", "song book"),
    ("chemistry", "acids and salts", "table of elements"),
    ("astronomy", "planets and comets", "star chart"),
    ("grammar", "nouns and verbs", "dictionary"),
    ("drawing", "light and shadow", "sketch book"),
    ("physics", "levers and magnets", "notebook"),
];

/// Dish, two ingredients, pan.
pub(super) const DISHES: &[(&str, &str, &str, &str)] = &[
    ("apple pie", "apples", "cinnamon", "round tin"),
    ("fish soup", "cod", "leeks", "large pot"),
    ("onion soup", "onions", "grated cheese", "clay pot"),
    ("plum cake", "plums", "sugar", "baking tray"),
    ("lamb stew", "lamb", "beans", "iron pot"),
    ("mushroom omelette", "mushrooms", "eggs", "frying pan"),
    ("pumpkin bread", "pumpkin", "walnuts", "bread tin"),
    ("vegetable curry", "carrots", "ginger", "deep pan"),
    ("rice pudding", "rice", "vanilla", "small saucepan"),
    ("tomato salad", "tomatoes", "basil", "glass bowl"),
];

/// Instrument, player, a part of it that fails.
pub(super) const INSTRUMENTS: &[(&str, &str, &str)] = &[
    ("violin", "violinist", "string"),
    ("piano", "pianist", "key"),
    ("trumpet", "trumpeter", "valve"),
    ("flute", "flautist", "joint"),
    ("cello", "cellist", "bow"),
    ("drum", "drummer", "skin"),
    ("guitar", "guitarist", "peg"),
    ("accordion", "accordion player", "strap"),
    ("harp", "harpist", "pedal"),
    ("clarinet", "clarinet player", "reed"),
];

/// Plant (plural), what is harvested, its pest (plural), the cure (past verb phrase).
pub(super) const PLANTS: &[(&str, &str, &str, &str)] = &[
    ("apple trees", "apples", "wasps", "hung sweet traps in the branches"),
    ("cherry trees", "cherries", "starlings", "stretched a net over the branches"),
    ("vines", "grapes", "foxes", "kept a dog among the rows"),
    ("bean plants", "beans", "aphids", "washed the leaves with soap"),
    ("pumpkins", "pumpkins", "slugs", "scattered ash on the soil"),
    ("strawberries", "berries", "blackbirds", "tied silver ribbons to sticks"),
    ("cabbages", "cabbages", "caterpillars", "picked the leaves clean by hand"),
    ("rose bushes", "roses", "beetles", "brushed the buds every morning"),
    ("tomato plants", "tomatoes", "whiteflies", "planted basil between the rows"),
];

/// A lost thing and where it turned up.
pub(super) const LOST_THINGS: &[(&str, &str)] = &[
    ("silver ring", "under the kitchen stove"),
    ("house key", "in the lining of an old coat"),
    ("gold watch", "behind the cupboard"),
    ("letter", "between the pages of a cookery book"),
    ("purse", "on the seat of the tram"),
    ("pair of glasses", "in the bread bin"),
    ("map", "at the bottom of the drawer"),
    ("umbrella", "in the waiting room"),
    ("necklace", "in the nest of a magpie"),
    ("wallet", "beneath a bench in the park"),
    ("diary", "in the attic trunk"),
    ("photograph", "inside a broken frame"),
];

pub(super) const GIFTS: &[&str] = &[
    "a book of poems",
    "a pair of warm gloves",
    "a box of chocolates",
    "a painted vase",
    "a wooden toy boat",
    "a silk scarf",
    "a pocket knife",
    "a music box",
    "a bunch of tulips",
    "a leather bag",
    "a new kite",
    "a set of coloured pencils",
];

pub(super) const ADJECTIVES: &[&str] = &[
    "quiet", "cheerful", "patient", "careful", "stubborn", "honest", "clever", "shy", "kind", "brave", "busy",
    "curious", "gentle", "proud", "serious", "tidy",
];

pub(super) const COLOURS: &[&str] =
    &["red", "blue", "green", "yellow", "white", "black", "brown", "grey", "orange", "purple"];

pub(super) const DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

pub(super) const MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(super) const NUMBERS: &[&str] = &[
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "twenty", "thirty", "forty", "fifty", "sixty",
];
