package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// config is the configuration file. Keys of a command's table are the long names of
// its flags, with _ or -; a command below another one has a table below its. What the
// command line says wins over it.
//
//	default_room = "lab"
//	listen = "0.0.0.0:4100"
//	[get]
//	limit_rate = "2M"
//	header = ["Accept-Language: de"]
//	[room.join]
//	wait = "30s"
type config struct {
	DefaultRoom string
	Listen      string
	Advertise   string
	PartialDir  string
	StateDir    string
	Discovery   string                    // off: members are not looked for in the network around
	tables      map[string]map[string]any // by the words of the command: "get", "room join"
}

// bound of the file; a larger one is not a configuration
const maxConfigSize = 1 << 20

// configPath returns where the configuration file is, or would be; "" for a user who has
// no folder for such files.
func configPath() string {
	if path := os.Getenv("DRAGONLOAD_CONFIG"); path != "" {
		return path
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "dragonload", "config.toml")
}

// loadConfig reads the configuration file, checks all of it and gives the flags of
// cmd, which are parsed already, the values of the file where the command line has
// none. That there is no file is no error, unless DRAGONLOAD_CONFIG names it.
func loadConfig(cmd *cobra.Command) (*config, error) {
	path := configPath()
	c := &config{tables: map[string]map[string]any{}}
	if path == "" {
		return c, nil
	}
	text, err := readBounded(path, maxConfigSize)
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("DRAGONLOAD_CONFIG") == "" {
		return c, nil
	}
	if err != nil {
		return nil, usagef("read the configuration: %w", err)
	}
	if err := c.parse(string(text), cmd.Root()); err != nil {
		return nil, usagef("configuration %s: %w", path, err)
	}
	if err := c.apply(cmd); err != nil {
		return nil, usagef("configuration %s: %w", path, err)
	}
	return c, nil
}

func (c *config) parse(text string, root *cobra.Command) error {
	var all map[string]any
	if _, err := toml.Decode(text, &all); err != nil {
		var bad toml.ParseError
		if errors.As(err, &bad) {
			return fmt.Errorf("line %d: %s", bad.Position.Line, bad.Message)
		}
		return err
	}
	words := map[string]*string{
		"default_room": &c.DefaultRoom, "listen": &c.Listen, "advertise": &c.Advertise,
		"partial_dir": &c.PartialDir, "state_dir": &c.StateDir, "discovery": &c.Discovery,
	}
	commands := map[string]*cobra.Command{}
	known := sortedKeys(words)
	for _, sub := range root.Commands() {
		if hasKeys(sub) {
			commands[sub.Name()] = sub
			known = append(known, "["+sub.Name()+"]")
		}
	}
	for _, key := range sortedKeys(all) {
		value := all[key]
		if table, ok := value.(map[string]any); ok {
			sub := commands[key]
			if sub == nil {
				return fmt.Errorf("no command [%s]%s", key, didYouMean("", nearest("["+key+"]", known)))
			}
			if err := c.parseTable(key, table, sub); err != nil {
				return err
			}
			continue
		}
		field := words[strings.ReplaceAll(key, "-", "_")]
		if field == nil {
			near := nearest(key, known)
			if near == "" {
				near = nearestInTables(key, commands)
			}
			return fmt.Errorf("no key %s%s", key, didYouMean("", near))
		}
		s, ok := value.(string)
		if !ok {
			return fmt.Errorf("%s must be a string", key)
		}
		*field = s
	}
	if c.Discovery != "" && c.Discovery != "on" && c.Discovery != "off" {
		return fmt.Errorf("discovery is %q; write on or off", c.Discovery)
	}
	for _, dir := range []*string{&c.PartialDir, &c.StateDir} {
		if *dir != "" && !filepath.IsAbs(*dir) {
			return fmt.Errorf("%s is not an absolute path", *dir)
		}
	}
	return nil
}

// nearestInTables returns the key near to one that stands outside the table of its
// command, with that table.
func nearestInTables(key string, commands map[string]*cobra.Command) string {
	for _, name := range []string{"get", "up"} {
		if flag := nearest(strings.ReplaceAll(key, "_", "-"), flagNames(commands[name])); flag != "" {
			return strings.ReplaceAll(flag, "-", "_") + " under [" + name + "]"
		}
	}
	return ""
}

// hasKeys reports whether a command, or one below it, has flags that can stand in the
// file.
func hasKeys(cmd *cobra.Command) bool {
	return len(keyNames(cmd)) > 0 || slices.ContainsFunc(cmd.Commands(), hasKeys)
}

// keyNames returns the flags of a command that can stand in the file.
func keyNames(cmd *cobra.Command) []string {
	return slices.DeleteFunc(flagNames(cmd), func(name string) bool { return name == "help" || name == "version" })
}

// parseTable takes in the table of a command, whose words are joined by dots in name.
func (c *config) parseTable(name string, table map[string]any, cmd *cobra.Command) error {
	path := strings.ReplaceAll(name, ".", " ")
	own, seen := map[string]any{}, map[string]bool{}
	for _, key := range sortedKeys(table) {
		if below, ok := table[key].(map[string]any); ok {
			at := slices.IndexFunc(cmd.Commands(), func(sub *cobra.Command) bool { return sub.Name() == key && hasKeys(sub) })
			if at < 0 {
				return fmt.Errorf("no command [%s.%s]", name, key)
			}
			if err := c.parseTable(name+"."+key, below, cmd.Commands()[at]); err != nil {
				return err
			}
			continue
		}
		flag := strings.ReplaceAll(key, "_", "-")
		if laterFlags[path][flag] {
			return fmt.Errorf("[%s] %s is not in this version yet", name, key)
		}
		if !slices.Contains(keyNames(cmd), flag) {
			return fmt.Errorf("[%s] has no key %s%s", name, key, didYouMean("", nearest(flag, keyNames(cmd))))
		}
		if seen[flag] {
			return fmt.Errorf("[%s] has %s twice, with _ and with -", name, key)
		}
		if _, err := keyValues(table[key], cmd.Flags().Lookup(flag)); err != nil {
			return fmt.Errorf("[%s] %s: %w", name, key, err)
		}
		own[key], seen[flag] = table[key], true
	}
	c.tables[path] = own
	return nil
}

// commandPath is the words of a command below the program's name.
func commandPath(cmd *cobra.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()), " ")
}

// apply gives the flags of cmd, which are parsed already, what its table says and the
// command line neither says nor contradicts.
func (c *config) apply(cmd *cobra.Command) error {
	path := commandPath(cmd)
	table := c.tables[path]
	for _, key := range sortedKeys(table) {
		flag := cmd.Flags().Lookup(strings.ReplaceAll(key, "_", "-"))
		if flag == nil || flag.Changed {
			continue
		}
		values, err := keyValues(table[key], flag)
		if err != nil {
			return fmt.Errorf("[%s] %s: %w", path, key, err)
		}
		if contradicted(cmd, path, flag.Name, values) {
			continue
		}
		for _, v := range values {
			if err := flag.Value.Set(v); err != nil {
				return fmt.Errorf("[%s] %s: %w", strings.ReplaceAll(path, " ", "."), key, plainFlagError(flag, err))
			}
		}
	}
	return nil
}

// rivals are, by command, pairs of flags that contradict each other: a key gives way where
// the command line has its rival. A word behind = is the one value that a flag
// contradicts with.
var rivals = map[string][][2]string{
	"get": {
		{"overwrite", "auto-rename"}, {"restart", "continue"}, {"room", "alone"}, {"alone", "confirm"},
		{"output=-", "dir"}, {"output=-", "overwrite"}, {"output=-", "auto-rename"},
	},
	"export":   {{"metalink", "torrent"}, {"metalink", "hybrid"}},
	"simulate": {{"drawn", "members"}, {"drawn", "size"}},
}

// contradicted reports whether the command line has a rival of a key with these values.
func contradicted(cmd *cobra.Command, path, key string, values []string) bool {
	means := func(rival string, changed bool, value string) bool {
		_, only, _ := strings.Cut(rival, "=")
		return changed && value != "false" && (only == "" || value == only)
	}
	for _, pair := range rivals[path] {
		for k, one := range pair {
			name, _, _ := strings.Cut(one, "=")
			if name != key || len(values) != 1 || !means(one, true, values[0]) {
				continue
			}
			other, _, _ := strings.Cut(pair[1-k], "=")
			if flag := cmd.Flags().Lookup(other); means(pair[1-k], flag.Changed, flag.Value.String()) {
				return true
			}
		}
	}
	return false
}

// keyValues is configValues for a flag: true is the flag without a value, false is no
// flag.
func keyValues(value any, flag *pflag.Flag) ([]string, error) {
	if on, ok := value.(bool); ok && flag.NoOptDefVal != "" && flag.Value.Type() != "bool" {
		if on {
			return []string{flag.NoOptDefVal}, nil
		}
		return nil, nil
	}
	return configValues(value)
}

// configValues returns a value of the file as a command line would write it, a list
// as the flag repeated.
func configValues(value any) ([]string, error) {
	switch v := value.(type) {
	case string:
		return []string{v}, nil
	case bool:
		return []string{strconv.FormatBool(v)}, nil
	case int64:
		return []string{strconv.FormatInt(v, 10)}, nil
	case float64:
		return []string{strconv.FormatFloat(v, 'f', -1, 64)}, nil
	case []any:
		var all []string
		for _, item := range v {
			if _, nested := item.([]any); nested {
				return nil, errors.New("a list within a list")
			}
			one, err := configValues(item)
			if err != nil {
				return nil, err
			}
			all = append(all, one...)
		}
		return all, nil
	}
	return nil, errors.New("must be a string, a number, true, false or a list of these")
}

// openState loads the configuration and finds the state folder.
func openState(cmd *cobra.Command) (cfg *config, stateDir string, err error) {
	if cfg, err = loadConfig(cmd); err != nil {
		return nil, "", err
	}
	if stateDir, err = cfg.stateDir(); err != nil {
		return nil, "", err
	}
	return cfg, stateDir, nil
}

// stateDir returns the folder of what dragonload keeps, made with mode 0700.
func (c *config) stateDir() (string, error) {
	dir := os.Getenv("DRAGONLOAD_STATE_DIR")
	if dir == "" {
		dir = c.StateDir
	}
	if dir == "" {
		var err error
		if dir, err = defaultStateDir(); err != nil {
			return "", failf(exitUsage, "no folder for the state: %w; set HOME or DRAGONLOAD_STATE_DIR", err)
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", failf(exitOther, "state folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", failf(exitCreate, "make the state folder: %w; set DRAGONLOAD_STATE_DIR to a folder that can be written", err)
	}
	return dir, nil
}

func defaultStateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "dragonload"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	switch runtime.GOOS {
	case "windows":
		if dir := os.Getenv("LocalAppData"); dir != "" {
			return filepath.Join(dir, "dragonload"), nil
		}
		return filepath.Join(home, "AppData", "Local", "dragonload"), nil
	case "darwin", "ios":
		return filepath.Join(home, "Library", "Application Support", "dragonload"), nil
	}
	return filepath.Join(home, ".local", "state", "dragonload"), nil
}

// ownPlaces returns where dragonload keeps something beside its state: the configuration,
// which may hold passwords, and pieces of others.
func ownPlaces() []string {
	var all []string
	for _, base := range []func() (string, error){os.UserConfigDir, os.UserCacheDir} {
		if dir, err := base(); err == nil {
			all = append(all, filepath.Join(dir, "dragonload"))
		}
	}
	if path := configPath(); path != "" {
		if path, err := filepath.Abs(path); err == nil {
			all = append(all, path)
		}
	}
	return all
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
