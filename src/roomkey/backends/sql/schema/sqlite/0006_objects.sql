-- Small objects by name. Of one name no two changes have the same revision. Names are bytes: they compare as they are.
CREATE TABLE roomkey_objects (
    space text NOT NULL,
    name blob NOT NULL,
    revision integer NOT NULL,
    value blob NOT NULL,
    PRIMARY KEY (space, name)
);
