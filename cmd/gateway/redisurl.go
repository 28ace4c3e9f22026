package main

import (
	"errors"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// What is wrong with a Redis URL is said without quoting any of it: where a
// password contains a slash or an @, anything may be part of it.
var (
	errRedisScheme = errors.New("must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
	errRedisHost   = errors.New("must name its hosts as host or host:port, several with commas " +
		"(a /, @, ? or # in a password is written %2F, %40, %3F, %23)")
	errRedisOneHost = errors.New("has several hosts, which only redis+sentinel:// and redis+cluster:// take")
	errRedisUser    = errors.New("has a malformed %-escape in its user or password")
	errRedisDB      = errors.New("must name its database as a number, as in /0 or ?db=0")
	errRedisMaster  = errors.New("must name the master, as in redis+sentinel://host:26379/master")
	errRedisPath    = errors.New("has too long a path")
	errRedisSocket  = errors.New("must have an absolute path, as in unix:///run/redis.sock")
	errRedisCluster = errors.New("has a database, and a cluster has only 0")
	errRedisQuery   = errors.New("has an option that is not one of db, username, password, " +
		"sentinel_username, sentinel_password (redis+sentinel only) and skip_verify (TLS only), each once")
)

// redisURL is a Redis URL taken apart. net/url refuses lists of hosts.
type redisURL struct {
	scheme, user, hosts, path string
	query                     url.Values
}

// parseRedis returns what a Redis URL says about where and as whom to connect.
func parseRedis(text string) (*redis.UniversalOptions, error) {
	u, err := splitRedisURL(text)
	if err != nil {
		return nil, err
	}
	scheme, ok := redisSchemes[u.scheme]
	if !ok {
		return nil, errRedisScheme
	}
	o := &redis.UniversalOptions{}
	if err := u.credentials(o); err != nil {
		return nil, err
	}
	if err := u.options(o); err != nil {
		return nil, err
	}
	if u.scheme == "unix" {
		return o, u.socket(o)
	}
	if o.Addrs, err = redisAddrs(u.hosts, scheme.port); err != nil {
		return nil, err
	}
	if len(o.Addrs) > 1 && !scheme.many {
		return nil, errRedisOneHost
	}
	return o, u.target(o)
}

// hasPassword says whether a Redis URL brings a password. What is no such URL is refused
// elsewhere.
func hasPassword(text string) bool {
	o, err := parseRedis(text)
	return err == nil && o.Password+o.SentinelPassword != ""
}

// splitRedisURL cuts scheme://user@hosts/path?query at the places where the
// delimiters stand.
func splitRedisURL(text string) (redisURL, error) {
	var u redisURL
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return u, errRedisScheme
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i+1:]
	}
	u.scheme = strings.ToLower(scheme)
	u.path = path
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		u.user, authority = authority[:at], authority[at+1:]
	}
	u.hosts = authority
	var err error
	if u.query, err = url.ParseQuery(query); err != nil {
		return u, errRedisQuery
	}
	return u, nil
}

func (u redisURL) credentials(o *redis.UniversalOptions) error {
	user, password, _ := strings.Cut(u.user, ":")
	var err1, err2 error
	o.Username, err1 = url.PathUnescape(user)
	o.Password, err2 = url.PathUnescape(password)
	if err1 != nil || err2 != nil {
		return errRedisUser
	}
	return nil
}

// options applies the query.
func (u redisURL) options(o *redis.UniversalOptions) error {
	sentinel := strings.HasSuffix(u.scheme, "+sentinel")
	secure := redisSchemes[u.scheme].tls
	skipVerify := false
	for name, values := range u.query {
		var err error
		switch {
		case len(values) != 1:
			return errRedisQuery
		case name == "db":
			o.DB, err = redisDB(values[0])
		case name == "username":
			o.Username = values[0]
		case name == "password":
			o.Password = values[0]
		case name == "sentinel_username" && sentinel:
			o.SentinelUsername = values[0]
		case name == "sentinel_password" && sentinel:
			o.SentinelPassword = values[0]
		case name == "skip_verify" && secure:
			if skipVerify, err = strconv.ParseBool(values[0]); err != nil {
				err = errRedisQuery
			}
		default:
			return errRedisQuery
		}
		if err != nil {
			return err
		}
	}
	if secure {
		o.TLSConfig = redisTLS(skipVerify)
	}
	return nil
}

// socket completes the options of a unix:// URL, all of whose path is a file.
func (u redisURL) socket(o *redis.UniversalOptions) error {
	if u.hosts != "" || u.path == "" {
		return errRedisSocket
	}
	path, err := url.PathUnescape("/" + u.path)
	if err != nil {
		return errRedisSocket
	}
	o.Addrs = []string{path}
	return nil
}

// target completes the options with what the path says: the database, and for
// Sentinel the master before it.
func (u redisURL) target(o *redis.UniversalOptions) (err error) {
	parts := strings.Split(strings.Trim(u.path, "/"), "/")
	if strings.HasSuffix(u.scheme, "+sentinel") {
		if o.MasterName, err = url.PathUnescape(parts[0]); err != nil || o.MasterName == "" {
			return errRedisMaster
		}
		parts = parts[1:]
	}
	if len(parts) > 1 {
		return errRedisPath
	}
	if len(parts) == 1 && parts[0] != "" {
		if o.DB, err = redisDB(parts[0]); err != nil {
			return err
		}
	}
	if strings.HasSuffix(u.scheme, "+cluster") {
		if o.DB != 0 {
			return errRedisCluster
		}
		o.IsClusterMode = true // also with one host, from which the others are learnt
	}
	return nil
}

func redisDB(text string) (int, error) {
	db, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, errRedisDB
	}
	return int(db), nil
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}
