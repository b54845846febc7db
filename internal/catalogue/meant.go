package catalogue

// MaxSameName is how many contents of one name are looked at for those that are shared.
const MaxSameName = 1000

// Distinct returns what was found with each manifest once, in place. It is Received only if
// all that was found of it is.
func Distinct(found []Found) []Found {
	at := make(map[[32]byte]int)
	once := found[:0]
	for _, f := range found {
		if i, again := at[f.Entry.Manifest]; again {
			once[i].Received = once[i].Received && f.Received
			continue
		}
		at[f.Entry.Manifest] = len(once)
		once = append(once, f)
	}
	return once
}

// Meant returns what a name means of all that is called so: what somebody shares. What
// members have only got from others, older versions say, has its id; it is meant where
// nobody shares anything of the name.
func Meant(found []Found) []Found {
	var shared []Found
	for _, f := range found {
		if !f.Received {
			shared = append(shared, f)
		}
	}
	if len(shared) > 0 {
		return shared
	}
	return found
}
