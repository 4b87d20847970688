/** Every word of the page, in English and Chinese. */

const en = {
  "title": "Colloquy",
  "skip": "Skip to the message box",
  "settings": "Settings",
  "conversation": "Conversation",

  "state.connecting": "Connecting",
  "state.loading": "Loading models",
  "state.queued": "Busy: position {n}",
  "state.reconnecting": "Reconnecting",
  "state.offline": "Not connected",
  "state.muted": "Microphone off",
  "state.listening": "Listening",
  "state.thinking": "Thinking",
  "state.speaking": "Speaking",

  "mic.start": "Start the microphone",
  "mic.stop": "Stop the microphone",
  "mic.hold": "Hold to talk",
  "level": "Sound level",
  "stop": "Stop the reply",
  "send": "Send",
  "text.placeholder": "Or type a message",

  "hint.title": "Press the microphone and speak",
  "hint.body": "Your words appear while you say them, and the answer is spoken. Speak again at any time to interrupt.",
  "hint.titleHold": "Hold the microphone and speak",
  "hint.bodyHold": "Your words appear while you say them. Let go, and the answer is spoken.",
  "hint.mic": "microphone",
  "hint.stop": "stop",
  "hint.send": "send",
  "key.space": "Space",

  "you": "You",
  "speaker": "Speaker {n}",
  "assistant": "Colloquy",
  "unsure": "not heard clearly",
  "stopped": "stopped here",
  "call.running": "running…",
  "call.done": "{ms} ms",
  "call.failed": "failed",
  "call.stopped": "stopped",

  "loading.title": "Getting ready",
  "loading.body": "You can already speak or type: it is answered as soon as everything is loaded.",
  "loading.failedTitle": "A model could not be loaded",
  "loading.failedBody": "The server tries again. Whoever runs it can see here what to change.",
  "role.vad": "Speech detection",
  "role.stt": "Recognition",
  "role.stt_partial": "Live recognition",
  "role.llm": "Language model",
  "role.tts": "Voice",
  "model.absent": "waiting",
  "model.fetching": "downloading",
  "model.loading": "loading",
  "model.ready": "ready",
  "model.failed": "failed",

  "banner.reconnecting": "Connection lost. Reconnecting… What you say is kept.",
  "banner.connecting": "The server does not answer. Trying again…",
  "banner.retry": "Try now",

  "waterfall.title": "Last turn",
  "waterfall.firstSound": "First sound {ms} ms",
  "waterfall.noSound": "No sound",
  "waterfall.note": "Counted from the end of your words.",
  "stage.endpoint": "End of turn noticed",
  "stage.stt_final": "Transcript",
  "stage.llm_first_token": "First word",
  "stage.first_segment": "First phrase",
  "stage.tts_first_audio": "Voice",
  "stage.first_audio_sent": "Sound sent",
  "stage.llm_done": "Text complete",
  "stage.reply_done": "Reply complete",

  "set.conversation": "Conversation",
  "set.language": "Language you speak",
  "set.languageDefault": "Server’s choice",
  "set.languageAuto": "Detect",
  "set.voice": "Voice",
  "set.voiceDefault": "Server’s choice",
  "set.voiceDefaultNamed": "Server’s choice ({name})",
  "set.speed": "Speaking speed",
  "set.pushToTalk": "Push to talk",
  "set.pushToTalkHelp": "Hold the microphone or the space bar while you speak.",
  "set.end": "Pause that ends your turn",
  "set.endHelp": "Longer lets you think; shorter answers sooner.",
  "set.instructions": "Instructions",
  "set.instructionsHelp": "How the assistant should answer. Leave empty for the server’s own.",
  "set.vocabulary": "Names and unusual words",
  "set.vocabularyHelp": "One a line. Recognition favours them.",
  "set.page": "This page",
  "set.uiLanguage": "Language of the page",
  "set.uiAuto": "As the browser",
  "set.apiKey": "API key",
  "set.apiKeyHelp": "Only if the server asks for one. It stays in this browser.",
  "set.apiKeyNeeded": "The server asks for an API key. Enter it here and save.",
  "set.apiKeyWrong": "The server did not accept this API key. Correct it and save.",
  "set.save": "Save",
  "set.cancel": "Cancel",
  "gender.man": "man",
  "gender.woman": "woman",
  "gender.male": "man",
  "gender.female": "woman",

  "notice.EVENTS_LOST": "You were away too long: some of what was said meanwhile is missing here.",
  "notice.NOTHING_HEARD": "No words were heard. Hold the button for as long as you speak.",
  "notice.UTTERANCE_TOO_LONG": "You spoke for a long time without a pause, so this much is answered first.",
  "notice.HQ_UNAVAILABLE": "There is no high-quality voice here: the fast one speaks.",

  "toast.dismiss": "Dismiss",
  "toast.micDenied": "The browser does not allow the microphone. Click the icon beside the address, allow the microphone for this page, and press the button again. Typing works meanwhile.",
  "toast.micMissing": "No microphone was found. Connect one and press the button again. Typing works meanwhile.",
  "toast.micBusy": "The microphone cannot be opened; another program may be using it. Close that one and press the button again. Typing works meanwhile.",
  "toast.micInsecure": "Browsers allow the microphone only on https pages and on localhost. Open this page by one of these. Typing works meanwhile.",
  "toast.micEnded": "The microphone was disconnected. Connect it and press the button again.",
  "toast.noSound": "This browser cannot play the reply’s sound. The text is shown all the same.",
  "toast.replaced": "The server had forgotten this conversation, so a new one was started. What you see above is no longer remembered.",
  "toast.refused": "The server refused the session: {message}",
  "toast.retry": "Try again in a moment.",
  "toast.trace": "{code}, trace {trace}",
};

/** @type {Record<keyof typeof en, string>} */
const zh = {
  "title": "Colloquy",
  "skip": "跳到输入框",
  "settings": "设置",
  "conversation": "对话",

  "state.connecting": "正在连接",
  "state.loading": "正在加载模型",
  "state.queued": "服务器繁忙：排在第 {n} 位",
  "state.reconnecting": "正在重新连接",
  "state.offline": "未连接",
  "state.muted": "麦克风已关闭",
  "state.listening": "正在听",
  "state.thinking": "正在思考",
  "state.speaking": "正在说话",

  "mic.start": "打开麦克风",
  "mic.stop": "关闭麦克风",
  "mic.hold": "按住说话",
  "level": "音量",
  "stop": "停止回答",
  "send": "发送",
  "text.placeholder": "也可以输入文字",

  "hint.title": "按下麦克风，开始说话",
  "hint.body": "您说话时文字会随之出现，回答会读给您听。随时再次开口即可打断。",
  "hint.titleHold": "按住麦克风，开始说话",
  "hint.bodyHold": "您说话时文字会随之出现。松开后，回答会读给您听。",
  "hint.mic": "麦克风",
  "hint.stop": "停止",
  "hint.send": "发送",
  "key.space": "空格",

  "you": "您",
  "speaker": "说话人 {n}",
  "assistant": "Colloquy",
  "unsure": "没有听清",
  "stopped": "在此停止",
  "call.running": "运行中…",
  "call.done": "{ms} 毫秒",
  "call.failed": "失败",
  "call.stopped": "已停止",

  "loading.title": "正在准备",
  "loading.body": "现在就可以说话或输入，加载完成后立即回答。",
  "loading.failedTitle": "有模型无法加载",
  "loading.failedBody": "服务器会重试。管理员可根据下面的说明处理。",
  "role.vad": "语音检测",
  "role.stt": "语音识别",
  "role.stt_partial": "实时识别",
  "role.llm": "语言模型",
  "role.tts": "语音合成",
  "model.absent": "等待中",
  "model.fetching": "下载中",
  "model.loading": "加载中",
  "model.ready": "就绪",
  "model.failed": "失败",

  "banner.reconnecting": "连接已断开，正在重新连接…… 您说的话会保留。",
  "banner.connecting": "服务器没有响应，正在重试……",
  "banner.retry": "立即重试",

  "waterfall.title": "上一轮",
  "waterfall.firstSound": "首次发声 {ms} 毫秒",
  "waterfall.noSound": "没有声音",
  "waterfall.note": "从您说完或发送时算起。",
  "stage.endpoint": "判断说完",
  "stage.stt_final": "转写完成",
  "stage.llm_first_token": "首个词",
  "stage.first_segment": "首个短句",
  "stage.tts_first_audio": "语音合成",
  "stage.first_audio_sent": "声音发出",
  "stage.llm_done": "文字完成",
  "stage.reply_done": "回答完成",

  "set.conversation": "对话",
  "set.language": "您说的语言",
  "set.languageDefault": "由服务器决定",
  "set.languageAuto": "自动识别",
  "set.voice": "声音",
  "set.voiceDefault": "由服务器决定",
  "set.voiceDefaultNamed": "由服务器决定（{name}）",
  "set.speed": "语速",
  "set.pushToTalk": "按住说话",
  "set.pushToTalkHelp": "说话时按住麦克风按钮或空格键。",
  "set.end": "停顿多久算说完",
  "set.endHelp": "长一些便于思考，短一些回答更快。",
  "set.instructions": "指令",
  "set.instructionsHelp": "希望助手如何回答。留空则使用服务器的指令。",
  "set.vocabulary": "人名和生僻词",
  "set.vocabularyHelp": "每行一个，识别时优先考虑。",
  "set.page": "本页面",
  "set.uiLanguage": "页面语言",
  "set.uiAuto": "跟随浏览器",
  "set.apiKey": "API 密钥",
  "set.apiKeyHelp": "仅在服务器要求时填写，只保存在此浏览器中。",
  "set.apiKeyNeeded": "服务器要求 API 密钥。请在此填写并保存。",
  "set.apiKeyWrong": "服务器不接受此 API 密钥。请更正并保存。",
  "set.save": "保存",
  "set.cancel": "取消",
  "gender.man": "男声",
  "gender.woman": "女声",
  "gender.male": "男声",
  "gender.female": "女声",

  "notice.EVENTS_LOST": "您离开得太久，期间的部分内容没有显示在这里。",
  "notice.NOTHING_HEARD": "没有听到内容。说话时请一直按住按钮。",
  "notice.UTTERANCE_TOO_LONG": "您一直没有停顿，先回答到目前为止的内容。",
  "notice.HQ_UNAVAILABLE": "这里没有高品质语音，将使用快速语音。",

  "toast.dismiss": "关闭",
  "toast.micDenied": "浏览器不允许使用麦克风。请点击地址栏旁的图标，允许本页面使用麦克风，然后再按一次按钮。在此期间可以打字。",
  "toast.micMissing": "没有找到麦克风。请连接麦克风后再按一次按钮。在此期间可以打字。",
  "toast.micBusy": "无法打开麦克风，可能正被其他程序占用。请关闭该程序后再按一次按钮。在此期间可以打字。",
  "toast.micInsecure": "浏览器只允许 https 页面和 localhost 使用麦克风。请用这样的地址打开本页。在此期间可以打字。",
  "toast.micEnded": "麦克风已断开。请重新连接后再按一次按钮。",
  "toast.noSound": "此浏览器无法播放回答的声音，文字仍会显示。",
  "toast.replaced": "服务器已不记得这次对话，因此开始了新的对话。上面的内容不再被记住。",
  "toast.refused": "服务器拒绝了会话：{message}",
  "toast.retry": "请稍后再试。",
  "toast.trace": "{code}，追踪号 {trace}",
};

/** @type {{ en: Record<string, string>, zh: Record<string, string> }} */
export const catalogue = { en, zh };

/** @type {"en" | "zh"} */
let current = "en";

/**
 * @param {string} wish "en", "zh" or "auto"
 * @param {readonly string[]} browser languages in order of preference
 * @returns {"en" | "zh"}
 */
export function pickLanguage(wish, browser) {
  if (wish === "en" || wish === "zh") return wish;
  for (const tag of browser) {
    const base = tag.toLowerCase().split("-")[0];
    if (base === "en" || base === "zh") return base;
  }
  return "en";
}

/** @param {"en" | "zh"} language */
export function setLanguage(language) {
  current = language;
}

export function language() {
  return current;
}

/** @param {string} key */
export function has(key) {
  return key in en;
}

/**
 * The words for a key, with `{name}` filled in.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function t(key, values = {}) {
  const words = catalogue[current][key];
  if (words === undefined) throw new Error(`no words for "${key}"`);
  return words.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/**
 * Writes the words of the current language into everything that names a key: `data-i18n` (text),
 * `data-i18n-label` (accessible name and tooltip), `data-i18n-placeholder`.
 * @param {Document} page
 */
export function translate(page) {
  page.documentElement.lang = current;
  for (const node of page.querySelectorAll("[data-i18n]")) {
    node.textContent = t(node.getAttribute("data-i18n") ?? "");
  }
  for (const node of page.querySelectorAll("[data-i18n-label]")) {
    const words = t(node.getAttribute("data-i18n-label") ?? "");
    node.setAttribute("aria-label", words);
    node.setAttribute("title", words);
  }
  for (const node of page.querySelectorAll("[data-i18n-placeholder]")) {
    node.setAttribute("placeholder", t(node.getAttribute("data-i18n-placeholder") ?? ""));
  }
}
