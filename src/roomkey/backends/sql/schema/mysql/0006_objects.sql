-- Small objects by name. Of one name no two changes have the same revision. Names are bytes: they compare as they are.
CREATE TABLE IF NOT EXISTS roomkey_objects (
    space varchar(32) NOT NULL,
    name varbinary(400) NOT NULL,
    revision bigint NOT NULL,
    value mediumblob NOT NULL,
    PRIMARY KEY (space, name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
