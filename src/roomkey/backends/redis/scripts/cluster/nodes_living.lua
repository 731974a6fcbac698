-- What all nodes say of themselves that live.
-- with living
return living()
