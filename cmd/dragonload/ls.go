package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"dragonload/internal/catalogue"
	"dragonload/internal/room"
	"dragonload/internal/rpc"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
)

// lsFlags are the flags of ls.
type lsFlags struct {
	room                 string
	json, links, holders bool
	limit                int
	discover             discoveryFlag
}

// shownDigits is how many digits of an id ls shows: with many more things than a room
// can hold, no two are alike in them.
const shownDigits = 12

// listedWithHolders is how many contents are listed with --holders if --limit does not
// say: the tracker is asked about each.
const listedWithHolders = 100

func newLs(std streams) *cobra.Command {
	var f lsFlags
	cmd := &cobra.Command{
		Use:   "ls [WORD...]",
		Short: "what the members of a room share",
		Long: `Lists what the members of a room offer: the first digits of its id, its size, how many
files it has, how many members hold it, some of them by number and name, and its name.
With WORDs only what has, for each of them, a word that begins so, in its own name or
in that of a file or folder in it, in any case; of a folder with very many names only the
first 512 words are known. dragonload get takes a name or an id.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, folder, state, err := openRooms(cmd)
			if err != nil {
				return err
			}
			name, err := chooseRoom(f.room, cfg, folder)
			if err != nil {
				return err
			}
			r, err := folder.Get(name)
			if err != nil {
				return roomError(err)
			}
			return f.run(cmd.Context(), &roomTracker{folder: folder, room: r, state: state, look: f.discover.on(cfg)}, args, std)
		},
	}
	fl := cmd.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.room, "room", "", "the `ROOM` (default: default_room of the config, else the only one)")
	fl.Var(&countValue{n: &f.limit, min: 1, max: catalogue.MaxEntries}, "limit", "list at most so many")
	fl.BoolVar(&f.holders, "holders", false, "list who holds each of them, at most "+strconv.Itoa(catalogue.MaxHandout)+" (of 100 contents without --limit)")
	fl.BoolVar(&f.links, "links", false, "print links in place of the table")
	fl.BoolVar(&f.json, "json", false, "JSON lines on standard output")
	f.discover.register(cmd, "do not look for the room's tracker in the network around where its address does not answer")
	return cmd
}

// roomTracker is who answers questions about a room.
type roomTracker struct {
	folder *room.Folder
	room   *room.Room
	state  string
	look   bool
}

func (f *lsFlags) run(ctx context.Context, from *roomTracker, words []string, std streams) error {
	if f.holders && f.limit == 0 {
		f.limit = listedWithHolders
	}
	q := catalogue.Query{Words: words, Limit: f.limit}
	if err := q.Validate(); err != nil {
		return usagef("%w", err)
	}
	page, err := from.search(ctx, q, f.holders)
	if err != nil {
		return err
	}
	if len(page.Found) == 0 && len(words) > 0 {
		return failf(exitNotFound, "nothing in %s has a word that begins with %s, of folders with very many names as far as their first %d words go; dragonload ls lists all there is",
			from.room.Name, safeText(strings.Join(words, " and ")), catalogue.MaxNames)
	}
	if err := f.write(page, from.room, std.out); err != nil {
		return failf(exitFileIO, "%w", err)
	}
	if len(page.Found) == 0 {
		fmt.Fprintf(std.err, "dragonload: nothing is offered in %s; dragonload share PATH offers something\n", from.room.Name)
	}
	if page.More {
		fmt.Fprintln(std.err, "dragonload: there is more; raise --limit, or name words")
	}
	return nil
}

// search asks the node that runs here, which may know of trackers that nobody else here
// does, or else the room's tracker itself. With holders all that the tracker names are in
// what is found.
func (t *roomTracker) search(ctx context.Context, q catalogue.Query, holders bool) (page catalogue.Page, err error) {
	if client, err := rpc.DialLocal(ctx, t.state); err == nil {
		defer client.Close()
		found, more, err := client.Search(ctx, &nodev1.SearchRequest{
			Room: t.room.Name, Words: q.Words, Limit: uint32(q.Limit), Holders: holders,
		})
		if err == nil {
			return decodeFound(found, more), nil
		}
		// Why, the tracker says better.
	}
	err = askTracker(ctx, t.folder, t.room, t.look, func(ctx context.Context, tracker *rpc.Tracker) (err error) {
		if page, err = tracker.Search(ctx, q); err != nil || !holders {
			return err
		}
		for k := range page.Found {
			all, err := tracker.Holders(ctx, page.Found[k].Entry.Manifest, 0)
			if err != nil {
				return err
			}
			page.Found[k] = page.Found[k].Naming(all)
		}
		return nil
	})
	return page, err
}

// decodeFound reads what the local API tells of a search.
func decodeFound(list []*nodev1.Found, more bool) catalogue.Page {
	page := catalogue.Page{More: more}
	for _, x := range list {
		f := catalogue.Found{Holders: int(x.GetHolders()), Whole: int(x.GetWhole()), Entry: &catalogue.Entry{
			Name: x.GetName(), Folder: x.GetFolder(), Size: x.GetSize(), Files: x.GetFiles(), Private: x.GetPrivate(),
		}}
		copy(f.Entry.Manifest[:], x.GetManifest())
		for _, h := range x.GetBy() {
			holder := &catalogue.Holder{Number: h.GetNumber(), Name: h.GetName(), Addr: h.GetAddr(), Partial: h.GetPartial()}
			copy(holder.ID[:], h.GetId())
			f.By = append(f.By, holder)
		}
		page.Found = append(page.Found, f)
	}
	return page
}

func (f *lsFlags) write(page catalogue.Page, r *room.Room, out io.Writer) error {
	switch file := fileOf(out); {
	case f.json:
		return writeFoundJSON(page, r, out)
	case f.links:
		for _, found := range page.Found {
			if _, err := fmt.Fprintln(out, contentLink(r, found.Entry)); err != nil {
				return err
			}
		}
		return nil
	case file != nil && isTerminal(file) && !f.holders:
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tSIZE\tFILES\tHOLDERS\tBY\tNAME")
		for _, found := range page.Found {
			e := found.Entry
			fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%s\n", hex.EncodeToString(e.Manifest[:])[:shownDigits], formatBytes(e.Size), e.Files, found.Holders, namedHolders(found), safeText(e.Name))
		}
		return table.Flush()
	}
	for _, found := range page.Found {
		e := found.Entry
		_, err := fmt.Fprintf(out, "%s  %d bytes  %d files  %d holders  %s  %s\n",
			hex.EncodeToString(e.Manifest[:])[:shownDigits], e.Size, e.Files, found.Holders, namedHolders(found), quotedPath(e.Name))
		for k := 0; f.holders && k < len(found.By); k++ {
			h := found.By[k]
			part := "all"
			if h.Partial {
				part = "part"
			}
			if err == nil {
				_, err = fmt.Fprintf(out, "  %d  %s  %s  %s  %s\n", h.Number, h.ID, quotedPath(h.Name), h.Addr, part)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// namedHolders shows some holders: number:name, and three dots for more.
func namedHolders(found catalogue.Found) string {
	var names []string
	some := found.By[:min(len(found.By), catalogue.MaxNamed)]
	for _, h := range some {
		names = append(names, fmt.Sprintf("%d:%s", h.Number, quotedPath(h.Name)))
	}
	if found.Holders > len(some) {
		names = append(names, "...")
	}
	return strings.Join(names, ",")
}

type (
	jsonFound struct {
		Event    string       `json:"event"` // found
		Time     string       `json:"time"`
		Manifest string       `json:"manifest"`
		Name     string       `json:"name"`
		Folder   bool         `json:"folder"`
		Size     int64        `json:"size"`
		Files    uint32       `json:"files"`
		Private  bool         `json:"private"`
		Holders  int          `json:"holders"`
		Whole    int          `json:"whole"` // holders of all of it
		By       []jsonHolder `json:"by"`    // some, or with --holders up to 50
		Link     string       `json:"link"`
	}
	jsonHolder struct {
		Number  uint32 `json:"number"`
		ID      string `json:"id"`
		Name    string `json:"name"`
		Addr    string `json:"addr,omitempty"`
		Partial bool   `json:"partial,omitempty"`
	}
)

func writeFoundJSON(page catalogue.Page, r *room.Room, out io.Writer) error {
	encoder := json.NewEncoder(out)
	for _, found := range page.Found {
		e := found.Entry
		line := jsonFound{
			Event: "found", Time: time.Now().UTC().Format(time.RFC3339Nano),
			Manifest: hex.EncodeToString(e.Manifest[:]), Name: e.Name, Folder: e.Folder, Size: e.Size, Files: e.Files, Private: e.Private,
			Holders: found.Holders, Whole: found.Whole, By: []jsonHolder{}, Link: contentLink(r, e),
		}
		for _, h := range found.By {
			line.By = append(line.By, jsonHolder{Number: h.Number, ID: h.ID.String(), Name: h.Name, Addr: h.Addr, Partial: h.Partial})
		}
		if err := encoder.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// contentLink leads to a content in a room.
func contentLink(r *room.Room, e *catalogue.Entry) string {
	return r.ContentLink(e.Manifest, e.Name, e.Size).String()
}
