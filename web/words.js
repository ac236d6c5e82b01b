/** What the page says, and how it writes times, by the browser's language. */

/**
 * A text in both languages, with something in it.
 *
 * @template {unknown[]} About
 * @typedef {((...about: About) => string)[]} Texts
 */

const WORDS = {
	signIn: ["Sign in", "登录"],
	signUp: ["Sign up", "注册"],
	pick: ["Or be one of these", "或直接选择身份"],
	userName: ["User name", "用户名"],
	nickName: ["Nickname", "昵称"],
	password: ["Password", "密码"],
	wrong: ["Wrong user name or password.", "用户名或密码错误。"],
	taken: ["This user name is taken.", "用户名已被使用。"],
	/** @type {Texts<[number]>} */
	tooOften: [(s) => `Too many attempts. Try again in ${s} s.`, (s) => `尝试次数过多，请${s}秒后再试。`],
	unavailable: ["Not possible right now. Please try again.", "服务器暂时无法处理，请重试。"],
	/** @type {Texts<[string]>} */
	invalid: [(why) => `That is not possible: ${why}`, (why) => `无法完成：${why}`],
	cookies: [
		"This browser keeps no cookies for this site. You can sign in, but only until the page is reloaded. Allow cookies to stay signed in.",
		"此浏览器不保存本网站的 Cookie。可以登录，但重新加载页面后需再次登录；如需保持登录，请允许 Cookie。",
	],
	broken: [
		"This page does not work in this browser. It needs a browser of 2024 or later; reloading the page may help.",
		"此页面无法在该浏览器中运行。请使用 2024 年或更新的浏览器，或尝试重新加载。",
	],
	unkept: [
		"This browser cannot store unsent messages: closing or reloading the page would lose them.",
		"此浏览器无法保存待发送的消息：关闭或重新加载页面会丢失它们。",
	],
	/** @type {Texts<[number]>} */
	dropped: [
		(n) => `Unsent messages of an earlier version were discarded, since they may be another person’s: ${n}`,
		(n) => `已丢弃旧版本留下的未发送消息，因为它们可能属于他人：${n}`,
	],
	/** @type {Texts<[number]>} */
	waiting: [
		(n) => `Not sent yet: ${n}. This browser keeps them until you sign in again. Sign out anyway?`,
		(n) => `尚未发送的消息：${n}。它们会保留在此浏览器中，直到您再次登录。仍要退出吗？`,
	],
	/** @type {Texts<[number]>} */
	unkeptOut: [
		(n) => `Not sent yet: ${n}. This browser cannot keep them, so signing out would lose them. Sign out anyway?`,
		(n) => `尚未发送的消息：${n}。此浏览器无法保存它们，退出会丢失它们。仍要退出吗？`,
	],
	ended: ["You were signed out. Please sign in again.", "您已退出登录，请重新登录。"],
	signOut: ["Sign out", "退出登录"],
	everywhere: ["Sign out everywhere", "在所有设备上退出"],
	account: ["Account", "账户"],
	notify: ["Turn on notifications", "开启通知"],
	conversations: ["Conversations", "会话"],
	find: ["Find by user name", "按用户名查找"],
	findGo: ["Find", "查找"],
	/** @type {Texts<[string]>} */
	nobody: [(name) => `There is no user “${name}”.`, (name) => `没有用户“${name}”。`],
	yourself: ["That is you.", "这是您自己。"],
	nobodyYet: ["No conversations yet. Find a user.", "还没有会话。查找一个人，开始聊天。"],
	more: ["Show more", "显示更多"],
	you: ["You", "我"],
	unread: ["unread", "条未读"],
	online: ["online", "在线"],
	typing: ["typing…", "正在输入…"],
	gone: ["Deleted account", "已注销的账户"],
	empty: ["No messages yet. Say hello.", "还没有消息，打个招呼吧。"],
	messages: ["Messages", "消息"],
	back: ["Back to the conversations", "返回会话列表"],
	block: ["Block", "屏蔽"],
	unblock: ["Unblock", "取消屏蔽"],
	write: ["Message", "消息"],
	send: ["Send", "发送"],
	/** @type {Texts<[number]>} */
	left: [(n) => `Characters left: ${n}`, (n) => `还可输入的字符：${n}`],
	/** @type {Texts<[length: number, most: number]>} */
	tooLong: [
		(n, most) => `Not accepted, since it is too long: ${n} characters. A message has at most ${most}.`,
		(n, most) => `内容过长，未能输入：${n}个字符。一条消息最多${most}个字符。`,
	],
	newMessages: ["New messages", "新消息"],
	jump: ["Jump to the newest", "跳到最新"],
	loading: ["Loading…", "加载中…"],
	connecting: ["Connecting…", "正在连接…"],
	today: ["Today", "今天"],
	yesterday: ["Yesterday", "昨天"],
	pending: ["waiting to be sent", "等待发送"],
	stored: ["stored", "已发送"],
	received: ["received", "已送达"],
	read: ["read", "已读"],
	failed: ["not sent", "未发送"],
	again: ["Send again", "重新发送"],
	discard: ["Discard", "丢弃"],
	50006: [
		"Not sent. Until you are answered you may send three messages; then as many as you like.",
		"未发送。对方回复之前最多可以发送三条消息，回复之后不再限制。",
	],
	403: ["Not sent: one of you has blocked the other.", "未发送：你们其中一方屏蔽了另一方。"],
	404: ["Not sent: this account is gone.", "未发送：该账户已不存在。"],
	400: ["Not sent: the server did not accept this text.", "未发送：服务器没有接受这段文字。"],
};

/**
 * The browser's language, or undefined for the default: some name one that is no tag, such as "C" or "en-US@posix".
 *
 * @param {string} language
 */
function localeOf(language) {
	try {
		return Intl.DateTimeFormat.supportedLocalesOf(language)[0];
	} catch {
		return undefined;
	}
}

const locale = localeOf(navigator.language);
export const lang = /^zh\b|^zh_/i.test(navigator.language) ? "zh" : "en";
export const words = /** @type {{ [Key in keyof typeof WORDS]: (typeof WORDS)[Key][number] }} */ (
	Object.fromEntries(Object.entries(WORDS).map(([key, [en, zh]]) => [key, lang === "zh" ? zh : en]))
);

/**
 * Why a message was not sent.
 *
 * @param {number} [code] of the refusal
 */
export const reason = (code = 400) =>
	/** @type {Record<number, string | undefined>} */ (/** @type {unknown} */ (words))[code] ?? words[400];

/** @type {(options: Intl.DateTimeFormatOptions) => (time: number) => string} */
const format = (options) => {
	const formatter = new Intl.DateTimeFormat(locale, options);
	return (time) => formatter.format(time);
};
const brief = format({ day: "numeric", month: "short" });
const dated = format({ weekday: "long", day: "numeric", month: "long" });
/** @type {(time: number) => number} */
const midnight = (time) => new Date(time).setHours(0, 0, 0, 0);
/** @type {(time: number) => number} */
const daysAgo = (time) => Math.round((midnight(Date.now()) - midnight(time)) / 864e5);

/** @type {(one: number, other: number) => boolean} */
export const sameDay = (one, other) => midnight(one) === midnight(other);
export const timeOfDay = format({ timeStyle: "short" });
export const fullTime = format({ dateStyle: "full", timeStyle: "short" });
/** @type {(time: number) => string} */
export const dayOf = (time) => [words.today, words.yesterday][daysAgo(time)] ?? dated(time);
/** @type {(time: number) => string} */
export const briefly = (time) => [timeOfDay(time), words.yesterday][daysAgo(time)] ?? brief(time);
